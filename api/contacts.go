package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// Contacts holds who is told what happens to partners' consents.
type Contacts interface {
	// Contacts returns those of the partner with that short name, by address.
	Contacts(partner string) ([]mandate.Contact, error)

	// AddContact adds one, and raises the epoch. The error wraps
	// [mandate.ErrExists] if it is there.
	AddContact(ctx context.Context, partner string, a mandate.MailAddress, by mandate.CallerID) error

	// RemoveContact removes one, and raises the epoch. The error wraps
	// [mandate.ErrNotFound] if there is none.
	RemoveContact(ctx context.Context, partner string, a mandate.MailAddress) error
}

// A ContactRequest is the body of POST /v1/partners/{partner}/contacts and
// contacts/remove.
type ContactRequest struct {
	Address string `json:"address"`
	Ticket  string `json:"ticket,omitempty"`
}

// A ContactList is who is told.
type ContactList struct {
	Partner  string            `json:"partner"`
	Contacts []mandate.Contact `json:"contacts"`
}

// withContacts makes an operation of one that needs them.
func withContacts(do func(*Server, Contacts, http.ResponseWriter, *http.Request, mandate.CallerID) error) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		if s.cfg.Contacts == nil {
			return fmt.Errorf("%w: this server tells nobody", mandate.ErrNotFound)
		}
		return do(s, s.cfg.Contacts, w, r, caller)
	}
}

// listContacts is GET /v1/partners/{partner}/contacts.
func (s *Server) listContacts(c Contacts, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	p, err := s.partnerOf(r)
	if err != nil {
		return err
	}
	return writeContacts(w, c, p)
}

func writeContacts(w http.ResponseWriter, c Contacts, p mandate.Partner) error {
	all, err := c.Contacts(p.Name)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, ContactList{p.Name, append([]mandate.Contact{}, all...)})
}

// addContact is POST /v1/partners/{partner}/contacts.
func (s *Server) addContact(c Contacts, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	return s.changeContacts(c, w, r, caller, "added", func(p mandate.Partner, a mandate.MailAddress) error {
		return c.AddContact(r.Context(), p.Name, a, caller)
	})
}

// removeContact is POST /v1/partners/{partner}/contacts/remove.
func (s *Server) removeContact(c Contacts, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	return s.changeContacts(c, w, r, caller, "removed", func(p mandate.Partner, a mandate.MailAddress) error {
		return c.RemoveContact(r.Context(), p.Name, a)
	})
}

// changeContacts records a change of who is told, tells those who were told
// before and whom it is about, and does it. The address is in the notice and
// not in the record, which is for ever.
func (s *Server) changeContacts(c Contacts, w http.ResponseWriter, r *http.Request, caller mandate.CallerID, what string, do func(mandate.Partner, mandate.MailAddress) error) error {
	in, p, by, err := begin(s, w, r, caller, func(in *ContactRequest) string { return in.Ticket })
	if err != nil {
		return err
	}
	a, err := mandate.ParseMailAddress(in.Address)
	if err != nil {
		return err
	}
	rec := mandate.Record{Caller: by.Caller, Address: by.Address, Ticket: by.Ticket, Partner: p.Name, Grant: &p.Key, Tenant: p.Key.Partner, Detail: "a contact was " + what, Reason: string(a)}
	n := mandate.Notice{Kind: mandate.NoticeContacts, Partner: p.Name, Grant: &p.Key, Who: shown(r.Context(), by.Caller), About: string(a) + " was " + what, Also: []string{string(a)}}
	err = mandate.Tell(r.Context(), s.cfg.Notifier, n, func() error {
		return s.change(r.Context(), rec, func() error { return do(p, a) })
	})
	if err != nil {
		return err
	}
	return writeContacts(w, c, p)
}

// shown is who does something, as people know them.
func shown(ctx context.Context, caller mandate.CallerID) string {
	if o := signedIn(ctx); o != nil && o.UserName != "" {
		return o.UserName
	}
	return string(caller)
}

// Contacts returns who is told what happens to a partner's consent.
func (c *Client) Contacts(ctx context.Context, nameOrID string) (ContactList, error) {
	return c.exchangeContacts(ctx, "GET", nameOrID, "", nil)
}

// AddContact adds an address that is told, and returns all.
func (c *Client) AddContact(ctx context.Context, nameOrID string, in ContactRequest) (ContactList, error) {
	return c.exchangeContacts(ctx, "POST", nameOrID, "", in)
}

// RemoveContact removes an address, and returns those that are left.
func (c *Client) RemoveContact(ctx context.Context, nameOrID string, in ContactRequest) (ContactList, error) {
	return c.exchangeContacts(ctx, "POST", nameOrID, "/remove", in)
}

func (c *Client) exchangeContacts(ctx context.Context, method, nameOrID, act string, in any) (ContactList, error) {
	if !mandate.Name(nameOrID) {
		return ContactList{}, mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	return exchange[ContactList](ctx, c, method, "/v1/partners/"+url.PathEscape(nameOrID)+"/contacts"+act, in)
}
