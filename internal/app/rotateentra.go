package app

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/graph"
	"github.com/mandate-sam/mandate/internal/rotation"
)

// secretLife is how long a secret lives that Entra makes for us.
const secretLife = 180 * 24 * time.Hour

// errHome says what is missing.
var errHome = mandate.Invalid("home_tenant", "is not configured for this application: say where it is registered, and let it change its own registration "+
	"(application permission Application.ReadWrite.OwnedBy, and the application among its own owners); or rotate by hand: --by-hand")

// A registration is the application's at Entra. It implements
// [rotation.Registry].
type registration struct {
	client   *entra.Client
	graph    *graph.Client
	audience mandate.Audience
	id       mandate.AppID
	home     mandate.TenantID
	probe    mandate.TenantID // where the credential is tried
	material material
	tell     func(rotation.Line)
}

// Try implements [rotation.Registry]. A grant is not touched by it.
func (r *registration) Try(ctx context.Context, s *rotation.State, which rotation.Which) error {
	_, err := r.token(ctx, s, which, r.probe)
	return err
}

func (r *registration) token(ctx context.Context, s *rotation.State, which rotation.Which, tenant mandate.TenantID) (mandate.Secret, error) {
	c, err := r.material.credential(ctx, s, which)
	if err != nil {
		return mandate.Secret{}, err
	}
	return r.client.With(c).Own(ctx, tenant, r.audience)
}

// as signs in to Graph with a credential, and reads the registration.
func (r *registration) as(ctx context.Context, s *rotation.State, which rotation.Which) (mandate.Secret, graph.Registration, error) {
	if r.home.IsZero() {
		return mandate.Secret{}, graph.Registration{}, errHome
	}
	token, err := r.token(ctx, s, which, r.home)
	if err != nil {
		return token, graph.Registration{}, err
	}
	reg, err := r.graph.Registration(ctx, token, r.id)
	return token, reg, explain(err)
}

// patience is how often Graph is asked again that is busy.
const patience = 4

// patient asks again while Graph is busy, for about as long as it says. Each of
// the requests may be repeated: they find what an earlier one did.
func patient(ctx context.Context, do func() error) error {
	for n := 0; ; n++ {
		err := do()
		var f *mandate.Fault
		if err == nil || n == patience || !errors.As(err, &f) || f.Domain != mandate.DomainTransient {
			return err
		}
		select {
		case <-time.After(min(max(f.RetryAfter, 300*time.Millisecond<<n), 20*time.Second)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// explain says of Graph's refusal what is missing.
func explain(err error) error {
	var f *mandate.Fault
	if errors.As(err, &f) && f.Status == 403 {
		return fmt.Errorf("%w: the application may not change its own registration: give it the application permission Application.ReadWrite.OwnedBy, "+
			"with an administrator's consent, and make it one of its own owners; or rotate by hand: --by-hand", err)
	}
	return err
}

// Add implements [rotation.Registry].
func (r *registration) Add(ctx context.Context, s *rotation.State) error {
	if s.Manual {
		return r.addByHand(ctx, s)
	}
	return patient(ctx, func() error {
		token, reg, err := r.as(ctx, s, rotation.Old)
		if err != nil {
			return err
		}
		if s.Kind == rotation.KindSecret {
			return explain(r.addSecret(ctx, s, token, reg))
		}
		return explain(r.addCertificate(ctx, s, token, reg))
	})
}

func (r *registration) addCertificate(ctx context.Context, s *rotation.State, token mandate.Secret, reg graph.Registration) error {
	if slices.ContainsFunc(reg.Credentials, func(c graph.Credential) bool { return c.Thumbprint == s.New.ID }) {
		return nil
	}
	der, err := r.der(ctx, s)
	if err != nil {
		return err
	}
	proof, err := r.proof(ctx, s, rotation.Old, reg.Object)
	if err != nil {
		return err
	}
	return r.graph.AddCertificate(ctx, token, r.id, reg.Object, s.Name(), der, proof)
}

func (r *registration) der(ctx context.Context, s *rotation.State) ([]byte, error) {
	c, err := r.material.credential(ctx, s, rotation.New)
	if err != nil {
		return nil, err
	}
	cert, ok := c.(*entra.Certificate)
	if !ok {
		return nil, mandate.Invalid("credential", "is not a certificate")
	}
	return cert.DER(), nil
}

func (r *registration) proof(ctx context.Context, s *rotation.State, which rotation.Which, object string) (mandate.Secret, error) {
	c, err := r.material.credential(ctx, s, which)
	if err != nil {
		return mandate.Secret{}, err
	}
	cert, ok := c.(*entra.Certificate)
	if !ok {
		return mandate.Secret{}, mandate.Invalid("credential", "is not a certificate")
	}
	return cert.Proof(ctx, object)
}

// addSecret has Entra make a secret. If an earlier attempt made one and what it
// was is lost, that one is removed; nobody can know it.
func (r *registration) addSecret(ctx context.Context, s *rotation.State, token mandate.Secret, reg graph.Registration) error {
	for _, c := range reg.Credentials {
		if !c.Secret || c.Name != s.Name() {
			continue
		}
		if kept, err := r.material.waiting(); err == nil && kept.Hint() == c.Hint {
			s.New = rotation.Ref{ID: kept.ID(), KeyID: c.KeyID, Until: c.End}
			return nil
		}
		if err := r.graph.RemoveSecret(ctx, token, reg.Object, c.KeyID); err != nil {
			return err
		}
	}
	c, value, err := r.graph.AddSecret(ctx, token, reg.Object, s.Name(), time.Now().Add(secretLife))
	if err != nil {
		return err
	}
	if err := r.material.keep(s, value); err != nil {
		return fmt.Errorf("store the new secret: %w", err)
	}
	made, err := entra.NewSecret(value)
	if err != nil {
		return err
	}
	s.New = rotation.Ref{ID: made.ID(), KeyID: c.KeyID, Until: c.End}
	return nil
}

// addByHand tells a person what to do. A certificate is waited for by trying
// it; a secret must come to us first.
func (r *registration) addByHand(ctx context.Context, s *rotation.State) error {
	if s.Kind != rotation.KindSecret {
		der, err := r.der(ctx, s)
		if err != nil {
			return err
		}
		r.tell(rotation.Line{Step: rotation.StepRegister, Text: "in the portal, under App registrations, " + r.id.String() +
			", Certificates & secrets, upload this certificate beside the old one:\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))})
		return nil
	}
	f := r.material.(*fileMaterial) // a secret is in a file
	r.tell(rotation.Line{Step: rotation.StepRegister, Text: "in the portal, under App registrations, " + r.id.String() +
		", Certificates & secrets, make a new client secret, and put its value into " + f.next() + ", with mode 600; it is waited for"})
	for {
		if made, err := f.waiting(); err == nil {
			s.New = rotation.Ref{ID: made.ID()}
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Remove implements [rotation.Registry]. The credential that stays signs for
// it.
func (r *registration) Remove(ctx context.Context, s *rotation.State, which rotation.Which) error {
	gone := s.Old
	if which == rotation.New {
		gone = s.New
	}
	if s.Manual {
		r.tell(rotation.Line{Step: rotation.StepRemove, Text: "in the portal, remove the credential " + gone.ID + " " + gone.KeyID + " of " + r.id.String()})
		return nil
	}
	return patient(ctx, func() error {
		token, reg, err := r.as(ctx, s, !which)
		if err != nil {
			return err
		}
		c, err := r.find(ctx, s, which, reg)
		if err != nil || c == nil {
			return err
		}
		if c.Secret {
			return explain(r.graph.RemoveSecret(ctx, token, reg.Object, c.KeyID))
		}
		proof, err := r.proof(ctx, s, !which, reg.Object)
		if err != nil {
			return err
		}
		return explain(r.graph.RemoveCertificate(ctx, token, reg.Object, c.KeyID, proof))
	})
}

// find returns one of the two credentials as Entra lists it; nil if it is not
// there. A secret of which no ID is known is found by what Entra shows of it,
// if that is of one alone.
func (r *registration) find(ctx context.Context, s *rotation.State, which rotation.Which, reg graph.Registration) (*graph.Credential, error) {
	ref, other := s.Old, s.New
	if which == rotation.New {
		ref, other = s.New, s.Old
	}
	var found []graph.Credential
	for _, c := range reg.Credentials {
		switch {
		case ref.KeyID != "" && c.KeyID == ref.KeyID, !c.Secret && ref.ID != "" && c.Thumbprint == ref.ID, which == rotation.New && c.Name == s.Name():
			return &c, nil
		case ref.KeyID == "" && c.Secret && s.Kind == rotation.KindSecret && c.KeyID != other.KeyID && r.hinted(ctx, s, which, c):
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return &found[0], nil
	}
	return nil, mandate.Invalid("credential", "%d secrets at Entra begin as the old one does, so which of them it is cannot be told: remove it in the portal, and run the rotation again", len(found))
}

func (r *registration) hinted(ctx context.Context, s *rotation.State, which rotation.Which, c graph.Credential) bool {
	own, err := r.material.credential(ctx, s, which)
	secret, ok := own.(*entra.Secret)
	return err == nil && ok && c.Hint != "" && c.Hint == secret.Hint()
}
