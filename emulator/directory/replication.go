package directory

import (
	"strings"
	"time"
)

// replica is the key of something new: an application, or its service
// principal in a tenant.
type replica struct{ tenant, app string }

// DelayApplication hides the application from everybody who looks for it by
// its application id, until then by the machine's clock: it takes a while
// until a new one is known everywhere. Its object is found at once.
func (d *Directory) DelayApplication(app string, until time.Time) {
	d.delay(replica{app: strings.ToLower(app)}, until)
}

// DelayPrincipal does the same to the application's service principal in the
// tenant.
func (d *Directory) DelayPrincipal(tenant, app string, until time.Time) {
	d.delay(replica{tenant, strings.ToLower(app)}, until)
}

func (d *Directory) delay(r replica, until time.Time) {
	if !until.After(time.Now()) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replicas[r] = until
}

// arrived reports whether what is new has replicated. The caller holds d.mu.
func (d *Directory) arrived(r replica) bool {
	return len(d.replicas) == 0 || !time.Now().Before(d.replicas[r])
}

// Replicated reports whether the application is known everywhere.
func (d *Directory) Replicated(app string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.arrived(replica{app: strings.ToLower(app)})
}
