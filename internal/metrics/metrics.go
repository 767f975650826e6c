// Package metrics tells Prometheus how the broker does. It counts nothing
// itself: when it is asked it reads what the broker, the vault and the log
// know. No label and no value is secret; the only names are those of partners.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mandate-sam/mandate"
)

// A Source is whom the metrics ask. All fields but Behind and Notices are required.
type Source struct {
	Stats     func() mandate.Stats
	Grants    func(context.Context, mandate.TenantID) ([]mandate.Grant, error)
	Partners  func() ([]mandate.Partner, error)
	Customers func(context.Context) (map[mandate.GrantKey]mandate.CustomerStanding, error)
	Records   func() int64                       // in the audit log
	Behind    func() map[string]int64            // records that each witness of it has not seen; nil: there are none
	Ready     func(context.Context) error        // why requests cannot be served
	Policy    func() (number int64, broken bool) // that decides, and whether a later one cannot be used
	Window    time.Duration                      // after which a refresh token lapses
	Log       *slog.Logger

	// Notices tells how many deliveries of notices wait and were given up, and
	// since when the oldest waits. Nil means that nobody is told.
	Notices func(context.Context) (waiting, failed int64, oldest time.Time, err error)
}

// scrapeTimeout bounds the questions of one scrape.
const scrapeTimeout = 5 * time.Second

// Handler answers in the text format of Prometheus, or in that of OpenMetrics
// if it is asked for that.
func Handler(s Source) (http.Handler, error) {
	r := prometheus.NewPedanticRegistry()
	for _, c := range []prometheus.Collector{&collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4}), nil
}

// The metrics. A gauge of a time is in seconds since 1970.
var (
	ready     = desc("ready", "Whether requests can be served.")
	inForce   = desc("policy_number", "Number of the policy that decides; 0 if there is none.")
	broken    = desc("policy_broken", "Whether a later policy cannot be used.")
	records   = desc("audit_records", "Records in the audit log.")
	behind    = desc("audit_witness_behind_records", "Signed records of the audit log that a witness has not taken.", "witness")
	tokens    = desc("token_requests_total", "Requests for tokens, by outcome.", "outcome")
	hits      = desc("token_cache_hits_total", "Tokens that were handed out from memory.")
	upstream  = desc("upstream_calls_total", "Calls to Microsoft, by what was asked and by outcome: ok, or the domain of the fault.", "call", "outcome")
	keepAlive = desc("keep_alives_total", "Redemptions that keep grants alive, by outcome.", "outcome")
	pauses    = desc("pauses_open", "Faults that are left alone just now, by domain.", "domain")
	grants    = desc("grants", "Generations of grants, by state.", "state")
	ends      = desc("grant_end_timestamp_seconds", "When the grant of a partner ends.", "partner")
	lapses    = desc("grant_lapse_timestamp_seconds", "When the refresh token of a partner lapses if nothing redeems it.", "partner")
	failing   = desc("grant_keep_alive_failures", "How often keeping the grant of a partner alive has failed since it last succeeded.", "partner")
	candidate = desc("grant_candidate_timestamp_seconds", "Until when a consent of a partner waits for a decision.", "partner")
	refreshes = desc("customer_refreshes_total", "Refreshes of lists of customers, by outcome.", "outcome")
	customers = desc("customers", "Customers of a partner.", "partner")
	listed    = desc("customers_as_of_timestamp_seconds", "Of when the list of a partner's customers is; 0 if there is none.", "partner")
	unlisted  = desc("customers_refresh_failures", "How often refreshing the list of a partner's customers has failed since it last succeeded.", "partner")
	notices   = desc("notice_deliveries", "Deliveries of notices, by state: waiting, or failed.", "state")
	oldest    = desc("notice_oldest_waiting_timestamp_seconds", "Since when the oldest notice that waits has waited; absent if none does.")
	read      = desc("grants_read", "Whether the grants could be read for this scrape.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("mandate_"+name, help, labels, nil)
}

// states are those of a grant, each of which is shown even at none.
var states = []mandate.State{
	mandate.StateCandidate, mandate.StateActive, mandate.StateFallback, mandate.StateSuspended,
	mandate.StateReplaced, mandate.StateDiscarded, mandate.StateWithdrawn,
}

type collector struct{ Source }

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ready, inForce, broken, records, behind, tokens, hits, upstream, keepAlive, pauses, grants, ends, lapses, failing, candidate, refreshes, customers, listed, unlisted, notices, oldest, read} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	s := c.Stats()
	gauge(ch, ready, yes(c.Ready(ctx) == nil))
	number, unusable := c.Policy()
	gauge(ch, inForce, float64(number))
	gauge(ch, broken, yes(unusable))
	gauge(ch, records, float64(c.Records()))
	if c.Behind != nil {
		for witness, n := range c.Behind() {
			gauge(ch, behind, float64(n), witness)
		}
	}
	counter(ch, hits, s.Hits)
	for outcome, n := range s.Tokens {
		counter(ch, tokens, n, outcome)
	}
	for call, n := range s.Upstream {
		counter(ch, upstream, n, call.What, call.Outcome)
	}
	for outcome, n := range s.KeepAlive {
		counter(ch, keepAlive, n, outcome)
	}
	for outcome, n := range s.Customers {
		counter(ch, refreshes, n, outcome)
	}
	for domain, n := range s.Pauses {
		gauge(ch, pauses, float64(n), string(domain))
	}
	err := c.collectGrants(ctx, ch)
	gauge(ch, read, yes(err == nil))
	if err := errors.Join(err, c.collectNotices(ctx, ch)); err != nil {
		c.Log.Warn("metrics", "err", err)
	}
}

// collectNotices tells how the outbox is.
func (c *collector) collectNotices(ctx context.Context, ch chan<- prometheus.Metric) error {
	if c.Notices == nil {
		return nil
	}
	waiting, failed, since, err := c.Notices(ctx)
	if err != nil {
		return err
	}
	gauge(ch, notices, float64(waiting), "waiting")
	gauge(ch, notices, float64(failed), "failed")
	if !since.IsZero() {
		gauge(ch, oldest, seconds(since))
	}
	return nil
}

// collectGrants tells of every partner, or of none: half of them would look
// like grants that are gone.
func (c *collector) collectGrants(ctx context.Context, ch chan<- prometheus.Metric) error {
	all, err := c.Grants(ctx, mandate.TenantID{})
	if err != nil {
		return err
	}
	partners, err := c.Partners()
	if err != nil {
		return err
	}
	lists, err := c.Customers(ctx)
	if err != nil {
		return err
	}
	names := make(map[mandate.GrantKey]string, len(partners))
	for _, p := range partners {
		names[p.Key] = p.Name
	}
	in := make(map[mandate.State]int)
	for i := range all {
		in[all[i].State]++
		if name := names[all[i].Key]; name != "" {
			c.collectGrant(ch, &all[i], name)
		}
	}
	for k, l := range lists {
		if name := names[k]; name != "" {
			c.collectList(ch, &l, name)
		}
	}
	for _, s := range states {
		gauge(ch, grants, float64(in[s]), string(s))
	}
	return nil
}

// collectGrant tells of the one generation that a partner has in each of these
// states.
func (c *collector) collectGrant(ch chan<- prometheus.Metric, g *mandate.Grant, partner string) {
	switch g.State {
	case mandate.StateActive, mandate.StateSuspended:
		gauge(ch, ends, seconds(g.Until), partner)
		gauge(ch, lapses, seconds(g.Lapses(c.Window)), partner)
		gauge(ch, failing, float64(g.Failures), partner)
	case mandate.StateCandidate:
		gauge(ch, candidate, seconds(g.Fallback), partner)
	}
}

// collectList tells how the list of a partner's customers stands.
func (c *collector) collectList(ch chan<- prometheus.Metric, l *mandate.CustomerStanding, partner string) {
	at := 0.0
	if !l.AsOf.IsZero() {
		at = seconds(l.AsOf)
	}
	gauge(ch, customers, float64(l.Count), partner)
	gauge(ch, listed, at, partner)
	gauge(ch, unlisted, float64(l.Failures), partner)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, n int64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
