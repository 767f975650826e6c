package directory

import (
	"slices"
	"strconv"
	"time"
)

// An Order is what a partner bought for a customer.
type Order struct {
	ID, BillingCycle, Currency string
	Partner                    string // who bought; others do not see it
	Created                    time.Time
	Lines                      []Line
}

// A Line is one line of an order.
type Line struct {
	Number       int
	Offer, Name  string
	Quantity     int
	Subscription string
}

// A Subscription is a commercial subscription of a customer.
type Subscription struct {
	ID, Offer, Name, Order, BillingCycle, Status string
	Partner                                      string // who bought; empty: every partner sees it
	Quantity                                     int
	AutoRenew                                    bool
	Created                                      time.Time

	// Version counts the changes; the ETag is made of it.
	Version int
}

// ETag names the state that the subscription is in.
func (s Subscription) ETag() string { return guid("etag", s.ID, strconv.Itoa(s.Version)) }

// Orders returns what the partner ordered for the customer.
func (d *Directory) Orders(partner, customer string) []Order {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.DeleteFunc(slices.Clone(d.orders[customer]), func(o Order) bool { return o.Partner != partner })
}

// PlaceOrder records the order with the subscriptions that it makes.
func (d *Directory) PlaceOrder(customer string, o Order, subs []Subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.orders[customer] = append(slices.Clone(d.orders[customer]), o)
	d.subscriptions[customer] = append(slices.Clone(d.subscriptionsOf(customer)), subs...)
}

// Subscriptions returns the customer's subscriptions that the partner sees.
func (d *Directory) Subscriptions(partner, customer string) []Subscription {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.DeleteFunc(slices.Clone(d.subscriptionsOf(customer)), func(s Subscription) bool {
		return s.Partner != "" && s.Partner != partner
	})
}

// subscriptionsOf starts a customer with the Azure plan that its Azure
// subscription belongs to. The caller holds d.mu.
func (d *Directory) subscriptionsOf(customer string) []Subscription {
	if subs, ok := d.subscriptions[customer]; ok {
		return subs
	}
	t := d.tenants[customer]
	if t.Subscription == "" {
		return nil
	}
	return []Subscription{{
		ID: t.Subscription, Offer: "DZH318Z0BPS6:0001", Name: "Azure plan", Order: guid("order", customer), BillingCycle: "monthly",
		Status: "active", Quantity: 1, AutoRenew: true, Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}}
}

// UpdateSubscription lets f change the customer's subscription, unless
// somebody else has changed it since it had that ETag. An empty ETag does not
// care. It returns the subscription as it then is.
func (d *Directory) UpdateSubscription(customer, id, etag string, f func(*Subscription)) (s Subscription, matched bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	subs := slices.Clone(d.subscriptionsOf(customer))
	for i := range subs {
		if subs[i].ID != id {
			continue
		}
		if etag != "" && etag != subs[i].ETag() {
			return subs[i], false
		}
		f(&subs[i])
		subs[i].Version++
		d.subscriptions[customer] = subs
		return subs[i], true
	}
	return Subscription{}, false
}
