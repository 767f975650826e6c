package main

import (
	"context"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/notify"
)

// The notices of the small world: one that nobody was told, and one that
// somebody was not.
type someNotices struct{ contacts []mandate.Contact }

var storedNotices = []notify.Notice{
	{ID: "n2", Kind: mandate.NoticeWithdrawn, State: notify.StateKept, Created: time.Unix(1_700_000_000, 0).UTC(), Partner: "contoso", Subject: "contoso: the consent was withdrawn",
		Text: "It was.\n", To: []mandate.MailAddress{"ada@contoso.example"}},
	{ID: "n1", Kind: mandate.NoticeStaged, State: notify.StateFailed, Created: time.Unix(1_600_000_000, 0).UTC(), Partner: "contoso", Subject: "contoso: a consent waits for a decision",
		Text: "One.\n\nTwo\x1b[31m.\n", Deliveries: []notify.Delivery{{Way: "mail", Address: "ada@contoso.example", State: notify.StateFailed, Attempts: 24, Fault: "mail by x: 550 no"}, {Way: "webhook", State: notify.StateWaiting, Attempts: 1, Next: time.Unix(1_700_000_000, 0)}}},
}

func (s *someNotices) List(_ context.Context, q notify.Query) ([]notify.Notice, error) {
	return slices.DeleteFunc(slices.Clone(storedNotices), func(n notify.Notice) bool { return q.State != "" && n.State != q.State }), nil
}

func (s *someNotices) Show(_ context.Context, id string) (notify.Notice, error) {
	for _, n := range storedNotices {
		if n.ID == id {
			return n, nil
		}
	}
	return notify.Notice{}, mandate.ErrNotFound
}

func (s *someNotices) Retry(ctx context.Context, id string) error {
	_, err := s.Show(ctx, id)
	return err
}

func (s *someNotices) Ways() []string { return nil }

func (s *someNotices) Contacts(string) ([]mandate.Contact, error) { return s.contacts, nil }

func (s *someNotices) AddContact(_ context.Context, _ string, a mandate.MailAddress, by mandate.CallerID) error {
	s.contacts = append(s.contacts, mandate.Contact{Address: a, Added: time.Unix(1_700_000_000, 0), By: by})
	return nil
}

func (s *someNotices) RemoveContact(_ context.Context, partner string, a mandate.MailAddress) error {
	n := len(s.contacts)
	s.contacts = slices.DeleteFunc(s.contacts, func(c mandate.Contact) bool { return c.Address == a })
	if n == len(s.contacts) {
		return mandate.ErrNotFound
	}
	return nil
}
