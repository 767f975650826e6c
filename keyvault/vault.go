// Package keyvault keeps things in Azure Key Vault: the key that wraps data
// keys ([Wrapper]), sealed grants ([Secrets]), and the private key of the
// application's certificate ([Signer]).
//
// It signs in with an [Identity] of its own and never as the application whose
// consents it guards: whoever has the application's credential must not have
// the vault as well.
package keyvault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"golang.org/x/time/rate"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	// callTimeout bounds one operation with all its retries.
	callTimeout = 30 * time.Second

	// tryTimeout bounds one request.
	tryTimeout = 10 * time.Second

	// longestWait is the longest Retry-After that is waited for. After a longer
	// one the operation fails at once: whoever waits for a token must not wait
	// longer than that.
	longestWait = 10 * time.Second

	// maxAnswer is the longest answer that is read. A secret has 25 KB at most.
	maxAnswer = 1 << 20
)

// The budget of a vault: 1,500 operations in ten seconds, of the 4,000 that
// Azure allows ("Azure Key Vault service limits"), so that several replicas
// and other users of the vault fit beside. Making a version of a secret has a
// limit of its own, of 300.
const (
	budgetRate, budgetBurst   = 100, 500
	versionRate, versionBurst = 10, 50
)

// Config says which vault, and who we are to it. All fields but the last are
// required.
type Config struct {
	URL      string        // https://NAME.vault.azure.net
	Cloud    mandate.Cloud // in which the vault and the identity are
	Identity Identity
	HTTP     *http.Client // trusts the certificate authorities of the cloud's hosts

	// Rate is how many operations a second this vault may be asked for, beyond
	// a burst of five times as many, and for a tenth of it to make versions of
	// secrets. Zero means 100.
	Rate int
}

// A Vault is one vault, as one identity sees it. It is safe for concurrent use.
type Vault struct {
	url        string // without a final slash
	name       string // its host, for people
	identity   string // for people
	scope      string
	credential azcore.TokenCredential
	options    azcore.ClientOptions
	keys       *azkeys.Client
	secrets    *azsecrets.Client

	budget   *rate.Limiter // of all operations
	versions *rate.Limiter // of new versions of secrets
}

// domains are where the vaults of Microsoft's clouds are; a managed HSM has
// keys alone.
var domains = map[string][]string{
	"global": {"vault.azure.net", "managedhsm.azure.net"},
	"usgov":  {"vault.usgovcloudapi.net", "managedhsm.usgovcloudapi.net"},
	"china":  {"vault.azure.cn", "managedhsm.azure.cn"},
}

// CloudOf returns the name of the one of Microsoft's clouds that a vault's URL
// belongs to, or "".
func CloudOf(vault string) string {
	for name := range domains {
		if domain(name, vault) != "" {
			return name
		}
	}
	return ""
}

// domain returns that of a cloud's domains which the vault is in, or "".
func domain(cloud, vault string) string {
	u, err := url.Parse(vault)
	if err != nil {
		return ""
	}
	for _, d := range domains[cloud] {
		if strings.HasSuffix(strings.ToLower(u.Host), "."+d) {
			return d
		}
	}
	return ""
}

// CheckURL reports whether there can be a vault of the cloud at a URL. A token
// for a vault is sent to no host that is not known to be one.
func CheckURL(vault string, c mandate.Cloud) error {
	u, err := upstream.ParseOrigin(vault)
	switch {
	case err != nil:
		return mandate.Invalid("vault", "%.100q %v", vault, err)
	case c.Custom && mandate.MicrosoftHost(u.Hostname()):
		return mandate.Invalid("vault", "%.100q is Microsoft's, and cloud %q is not", vault, c.Name)
	case !c.Custom && domain(c.Name, vault) == "":
		return mandate.Invalid("vault", "%.100q is not a vault of cloud %q: those end in %s", vault, c.Name, strings.Join(domains[c.Name], " or "))
	}
	return nil
}

// New returns a vault. It reads no file and calls nobody.
func New(c Config) (*Vault, error) {
	if err := CheckURL(c.URL, c.Cloud); err != nil {
		return nil, err
	}
	u, err := upstream.ParseOrigin(c.URL)
	if err != nil {
		return nil, err
	}
	operations := cmp.Or(c.Rate, budgetRate)
	v := &Vault{
		url: u.String(), name: u.Host, identity: c.Identity.String(), options: clientOptions(c.Cloud, c.HTTP),
		budget:   rate.NewLimiter(rate.Limit(operations), max(operations*budgetBurst/budgetRate, 8)), // the costliest operation is 8
		versions: rate.NewLimiter(rate.Limit(operations)*versionRate/budgetRate, max(operations*versionBurst/budgetRate, 1)),
	}
	v.scope = "https://vault.azure.net/.default"
	if d := domain(c.Cloud.Name, v.url); d != "" && !c.Cloud.Custom {
		v.scope = "https://" + d + "/.default"
	}
	if v.credential, err = c.Identity.credential(v.options, c.Cloud); err != nil {
		return nil, err
	}
	// A vault says in its challenge for which resource it wants a token, and
	// the client makes sure that its own host is in that resource's domain. A
	// custom cloud's vault has no such domain; its certificate authority is
	// pinned instead, and its identity is worth nothing elsewhere.
	v.keys, err = azkeys.NewClient(v.url, v.credential, &azkeys.ClientOptions{ClientOptions: v.options, DisableChallengeResourceVerification: c.Cloud.Custom})
	if err != nil {
		return nil, err
	}
	v.secrets, err = azsecrets.NewClient(v.url, v.credential, &azsecrets.ClientOptions{ClientOptions: v.options, DisableChallengeResourceVerification: c.Cloud.Custom})
	return v, err
}

// String names the vault for people.
func (v *Vault) String() string { return v.name }

func clientOptions(c mandate.Cloud, h *http.Client) azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: c.Authority + "/"},
		Transport: transport{upstream.Direct(h)},
		Telemetry: policy.TelemetryOptions{ApplicationID: "mandate"},
		Retry: policy.RetryOptions{
			MaxRetries: 3, TryTimeout: tryTimeout, RetryDelay: 500 * time.Millisecond, MaxRetryDelay: longestWait,
		},
	}
}

// A transport bounds answers, and keeps from the SDK a challenge that it would
// panic on.
type transport struct{ http *http.Client }

// challenge is what a vault's must have: an authority with a tenant behind it.
var challenge = regexp.MustCompile(`authorization="?https://[^/"\s]+/[^/"\s,]+`)

// Do implements [policy.Transporter].
func (t transport) Do(r *http.Request) (*http.Response, error) {
	resp, err := t.http.Do(r)
	if err != nil {
		return nil, upstream.WithoutURL(err)
	}
	resp.Body = bounded{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	if h := resp.Header.Get("WWW-Authenticate"); h != "" && strings.Contains(h, "authorization=") && !challenge.MatchString(h) {
		resp.Header.Del("WWW-Authenticate")
	}
	return resp, nil
}

type bounded struct {
	io.Reader
	io.Closer
}

// An operation is what is being done, for the sentence that is written if it
// fails.
type operation struct {
	verb       string // "wrap a data key with"
	object     string // "key mandate"
	permission string // what it takes: "keys wrapKey"
}

// call does one operation, which costs units of the vault's budget.
func call[T any](ctx context.Context, v *Vault, o operation, units int, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := v.spend(ctx, v.budget, units); err != nil {
		var none T
		return none, v.describe(o, err)
	}
	out, err := do(ctx)
	if err != nil {
		return out, v.describe(o, err)
	}
	return out, nil
}

// errBudget: our own limit, not Azure's.
var errBudget = errors.New("this server already asks the vault as often as it lets itself")

// spend waits until the budget has so many units.
func (v *Vault) spend(ctx context.Context, budget *rate.Limiter, units int) error {
	if err := budget.WaitN(ctx, units); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", mandate.ErrUnavailable, errBudget)
	}
	return nil
}

// pause waits between two looks at something that takes time, and reports
// whether there is time left.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(settleEvery):
		return true
	}
}

// settleEvery is how often something is looked at that takes Azure a while, as
// deleting and recovering do.
const settleEvery = 500 * time.Millisecond
