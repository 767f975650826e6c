package fault

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// services are the names of the services in dials.
var services = []string{"login", "partnercenter", "graph", "arm", "keyvault"}

func (d Dials) checkWeather() error {
	for _, name := range d.Outage {
		if !slices.Contains(services, name) {
			return fmt.Errorf("outage cannot have %q", name)
		}
	}
	for name, n := range d.LatencyMillis {
		if !slices.Contains(services, name) || n < 0 {
			return fmt.Errorf("latency_millis cannot have %q: %d", name, n)
		}
	}
	return nil
}

// Latency is how long the service takes to answer any request.
func (p *Panel) Latency(service string) time.Duration {
	return time.Duration(p.Dials().LatencyMillis[service]) * time.Millisecond
}

// out reports whether the service is in an outage.
func (d Dials) out(service string) bool { return slices.Contains(d.Outage, service) }

func (d *Dials) cloneWeather() {
	d.Outage = slices.Clone(d.Outage)
	d.LatencyMillis = maps.Clone(d.LatencyMillis)
}
