package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/graph"
	"github.com/mandate-sam/mandate/internal/rotation"
)

// grantsOf returns the grants that an application's credential is for: those
// that have a refresh token.
func (r *rotator) grantsOf(ctx context.Context, l *liveCredential) ([]mandate.Grant, error) {
	id, err := mandate.ParseAppID(l.application.ClientID)
	if err != nil {
		return nil, err
	}
	all, err := r.vault.Grants(ctx, mandate.TenantID{})
	return slices.DeleteFunc(all, func(g mandate.Grant) bool {
		living := g.State == mandate.StateActive || g.State == mandate.StateSuspended || g.State == mandate.StateFallback || g.State == mandate.StateCandidate
		return g.Key.Application != id || g.Key.Cloud != l.application.cloud() || !living
	}), err
}

// touched names the grants and their states.
func (r *rotator) touched(ctx context.Context, l *liveCredential) (map[string]string, error) {
	all, err := r.grantsOf(ctx, l)
	out := make(map[string]string, len(all))
	for _, g := range all {
		out[grantName(g)] = string(g.State)
	}
	return out, err
}

func grantName(g mandate.Grant) string { return fmt.Sprintf("%s/%d", g.Key.Partner, g.Generation) }

// grants lists the grants that are redeemed with the new credential from now
// on, and says which of them to renew.
func (r *rotator) grants(ctx context.Context, s *rotation.State, l *liveCredential, before map[string]string, tell func(api.CredentialLine)) error {
	all, err := r.grantsOf(ctx, l)
	if err != nil {
		return err
	}
	for _, g := range all {
		delete(before, grantName(g))
		line := &api.CredentialGrant{Partner: nameOf(r.store, g.Key), State: string(g.State), Generation: g.Generation}
		if s.Compromised {
			line.Renew = true
			line.Why = fmt.Sprintf("its refresh token was stored while the old credential worked (until %s): whoever had both could redeem it, and what they got by it lives for up to an hour and a half more, "+
				"or 28 hours where continuous access evaluation applies; the refresh token itself is of no use without the new credential", s.Removed.UTC().Format(time.RFC3339))
		}
		tell(api.CredentialLine{Grant: line})
	}
	text := fmt.Sprintf("%d grant(s) are redeemed with the new credential; none was changed", len(all))
	if len(before) > 0 {
		text = fmt.Sprintf("%d grant(s) are redeemed with the new credential; %d ended meanwhile, for reasons of their own: see mandate audit tail", len(all), len(before))
	}
	tell(api.CredentialLine{Text: text})
	return nil
}

// Credentials implements [api.Credentials].
func (r *rotator) Credentials(ctx context.Context, application string) ([]api.CredentialStatus, error) {
	var all []api.CredentialStatus
	for i := range r.config.Applications {
		name := r.config.Applications[i].Name
		if application != "" && name != application {
			continue
		}
		st, err := r.status(ctx, r.upstream.live[name])
		if err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	if len(all) == 0 {
		_, err := r.application(application)
		return nil, err
	}
	return all, nil
}

func (r *rotator) status(ctx context.Context, l *liveCredential) (api.CredentialStatus, error) {
	cr, ref := &l.application.Credential, l.ref()
	st := api.CredentialStatus{
		Application: l.application.Name, Kind: cr.rotates(), Where: cr.where(), ID: ref.ID, Expires: ref.Until,
		Entra: []api.EntraCredential{}, Warnings: []string{},
	}
	s, err := r.states.Load(ctx, l.application.Name)
	if err != nil {
		return st, err
	}
	if st.Expires.IsZero() && s.InUse.ID == ref.ID {
		st.Expires = s.InUse.Until
	}
	if s.ID != "" {
		st.Rotation = &api.CredentialRotation{ID: s.ID, Begun: s.Begun, Done: s.Done, Undoing: s.Undoing, Compromised: s.Compromised, KeepUntil: s.KeepUntil}
		st.Warnings = append(st.Warnings, "a rotation is under way: mandate credential rotate "+st.Application+" goes on with it, or --undo takes it back")
	}
	if cr.Secret != "" {
		st.Warnings = append(st.Warnings, "a secret is sent with every request, and whoever sees it once has it; a certificate's key never leaves, so a certificate would be better")
	}
	reg, err := r.registered(ctx, l)
	if err != nil {
		st.Unasked = err.Error()
		return st, nil
	}
	r.compare(&st, &s, l, reg)
	return st, nil
}

// registered asks Entra for the registration, as the application.
func (r *rotator) registered(ctx context.Context, l *liveCredential) (graph.Registration, error) {
	if l.application.HomeTenant == "" {
		return graph.Registration{}, errors.New("home_tenant is not configured, so Entra is not asked")
	}
	reg, err := r.registration(ctx, l, nil)
	if err != nil {
		return graph.Registration{}, err
	}
	token, err := reg.client.Own(ctx, reg.home, reg.audience)
	if err != nil {
		return graph.Registration{}, err
	}
	out, err := reg.graph.Registration(ctx, token, reg.id)
	return out, explain(err)
}

// compare tells what Entra has from what is known here. A credential at Entra
// that nobody here knows may be an attacker's: whoever can change a
// registration adds one of their own, and it outlives every other remedy.
func (r *rotator) compare(st *api.CredentialStatus, s *rotation.State, l *liveCredential, reg graph.Registration) {
	found := false
	for _, c := range reg.Credentials {
		e := api.EntraCredential{KeyID: c.KeyID, Kind: "certificate", Name: c.Name, Hint: c.Hint, Thumbprint: c.Thumbprint, Start: c.Start, End: c.End}
		if c.Secret {
			e.Kind = "secret"
		}
		e.Ours = ours(s, l, c)
		found = found || e.Ours == "in use"
		st.Entra = append(st.Entra, e)
	}
	if n := st.Strangers(); n > 0 {
		st.Warnings = append(st.Warnings, fmt.Sprintf("%d credential(s) at Entra are not known here: whoever has one can act as this application. "+
			"If nobody can say whose they are, remove them in the portal, and look in Entra's audit log for who added them", n))
	}
	if !found && st.ID != "" {
		st.Warnings = append(st.Warnings, "Entra does not list the credential that is in use here")
	}
	if reg.ImplicitTokens {
		st.Implicit = append(st.Implicit, "access tokens")
	}
	if reg.ImplicitIDs {
		st.Implicit = append(st.Implicit, "ID tokens")
	}
	if len(st.Implicit) > 0 {
		st.Warnings = append(st.Warnings, fmt.Sprintf("Entra lets a browser have %s without a code (implicit grant, hybrid flow), which nothing here uses: "+
			"switch it off in the portal, under Authentication", strings.Join(st.Implicit, " and ")))
	}
}

// ours says which of our credentials one of Entra's is.
func ours(s *rotation.State, l *liveCredential, c graph.Credential) string {
	current := l.ref()
	secret, _ := l.current().(*entra.Secret)
	switch {
	case !c.Secret && c.Thumbprint != "" && c.Thumbprint == current.ID,
		c.Secret && secret != nil && s.InUse.ID == current.ID && s.InUse.KeyID == c.KeyID,
		c.Secret && secret != nil && (s.InUse.ID != current.ID || s.InUse.KeyID == "") && c.Hint != "" && c.Hint == secret.Hint():
		return "in use"
	case s.ID == "":
		return ""
	case c.Name == s.Name() || c.Thumbprint != "" && c.Thumbprint == s.New.ID:
		return "new"
	case c.KeyID == s.Old.KeyID || c.Thumbprint != "" && c.Thumbprint == s.Old.ID:
		return "old"
	}
	return ""
}
