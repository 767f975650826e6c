package partnercenter

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// maxQuantity bounds what one line of an order can ask for.
const maxQuantity = 10_000

// orderBody is an order as clients send it.
type orderBody struct {
	ReferenceCustomerID string     `json:"referenceCustomerId"`
	BillingCycle        string     `json:"billingCycle"`
	CurrencyCode        string     `json:"currencyCode"`
	LineItems           []lineBody `json:"lineItems"`
}

type lineBody struct {
	LineItemNumber int    `json:"lineItemNumber"`
	OfferID        string `json:"offerId"`
	FriendlyName   string `json:"friendlyName"`
	Quantity       int    `json:"quantity"`
}

func (b orderBody) check(t directory.Tenant) error {
	if b.ReferenceCustomerID != "" && !strings.EqualFold(b.ReferenceCustomerID, t.ID) {
		return invalid("The order is for another customer than the path says.")
	}
	if len(b.LineItems) == 0 {
		return invalid("An order needs lineItems.")
	}
	for _, l := range b.LineItems {
		if l.OfferID == "" || l.Quantity < 1 || l.Quantity > maxQuantity {
			return invalid("A line item needs an offerId and a quantity.")
		}
	}
	return nil
}

// placeOrder orders for the customer. It is complete at once: each line has
// its subscription.
func (s *Server) placeOrder(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	var in orderBody
	if err := bearer.ReadJSON(c.Request, &in); err != nil {
		return reply{}, invalid("The body is not an order.")
	}
	if err := in.check(t); err != nil {
		return reply{}, err
	}
	o := directory.Order{ID: s.cfg.Chance.GUID(), Partner: c.partner.ID, BillingCycle: in.BillingCycle, Currency: in.CurrencyCode, Created: s.cfg.Dials.Now()}
	if o.BillingCycle == "" {
		o.BillingCycle = "monthly"
	}
	if o.Currency == "" {
		o.Currency = "USD"
	}
	var subs []directory.Subscription
	for _, l := range in.LineItems {
		id := s.cfg.Chance.GUID()
		o.Lines = append(o.Lines, directory.Line{Number: l.LineItemNumber, Offer: l.OfferID, Name: l.FriendlyName, Quantity: l.Quantity, Subscription: id})
		subs = append(subs, directory.Subscription{
			ID: id, Offer: l.OfferID, Name: l.FriendlyName, Order: o.ID, BillingCycle: o.BillingCycle, Status: "active",
			Partner: c.partner.ID, Quantity: l.Quantity, AutoRenew: true, Created: o.Created,
		})
	}
	s.cfg.Directory.PlaceOrder(t.ID, o, subs)
	return reply{status: http.StatusCreated, body: orderAnswer(t, o)}, nil
}

func orderAnswer(t directory.Tenant, o directory.Order) map[string]any {
	self := "/customers/" + t.ID + "/orders/" + o.ID
	lines := []any{}
	for _, l := range o.Lines {
		lines = append(lines, map[string]any{
			"lineItemNumber": l.Number, "offerId": l.Offer, "friendlyName": l.Name, "quantity": l.Quantity, "subscriptionId": l.Subscription,
			"links": map[string]any{"subscription": link("/customers/" + t.ID + "/subscriptions/" + l.Subscription)},
		})
	}
	return map[string]any{
		"id": o.ID, "referenceCustomerId": t.ID, "billingCycle": o.BillingCycle, "currencyCode": o.Currency,
		"creationDate": o.Created.UTC().Format(time.RFC3339), "status": "completed", "lineItems": lines,
		"links":      map[string]any{"self": link(self)},
		"attributes": map[string]any{"etag": o.ID, "objectType": "Order"},
	}
}

func (s *Server) orders(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	show := func(o directory.Order) map[string]any { return orderAnswer(t, o) }
	return ok(page(c, s.cfg.Directory.Orders(c.partner.ID, t.ID), "/customers/"+t.ID+"/orders", show))
}

func (s *Server) order(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	for _, o := range s.cfg.Directory.Orders(c.partner.ID, t.ID) {
		if strings.EqualFold(o.ID, c.PathValue("order")) {
			return ok(orderAnswer(t, o), nil)
		}
	}
	return reply{}, errUnknownRoute
}

func subscriptionAnswer(t directory.Tenant, u directory.Subscription) map[string]any {
	self := "/customers/" + t.ID + "/subscriptions/" + u.ID
	return map[string]any{
		"id": u.ID, "offerId": u.Offer, "offerName": u.Name, "friendlyName": u.Name, "quantity": u.Quantity, "unitType": "Licenses",
		"status": u.Status, "autoRenewEnabled": u.AutoRenew, "billingCycle": u.BillingCycle, "orderId": u.Order,
		"creationDate":       u.Created.UTC().Format(time.RFC3339),
		"effectiveStartDate": u.Created.UTC().Format(time.RFC3339), "commitmentEndDate": u.Created.UTC().AddDate(1, 0, 0).Format(time.RFC3339),
		"links":      map[string]any{"self": link(self), "order": link("/customers/" + t.ID + "/orders/" + u.Order)},
		"attributes": map[string]any{"etag": u.ETag(), "objectType": "Subscription"},
	}
}

func (s *Server) subscriptions(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	show := func(u directory.Subscription) map[string]any { return subscriptionAnswer(t, u) }
	return ok(page(c, s.cfg.Directory.Subscriptions(c.partner.ID, t.ID), "/customers/"+t.ID+"/subscriptions", show))
}

// find returns the customer of the path and its subscription.
func (s *Server) find(c call) (directory.Tenant, directory.Subscription, error) {
	t, err := s.mine(c)
	if err != nil {
		return t, directory.Subscription{}, err
	}
	for _, u := range s.cfg.Directory.Subscriptions(c.partner.ID, t.ID) {
		if strings.EqualFold(u.ID, c.PathValue("subscription")) {
			return t, u, nil
		}
	}
	return t, directory.Subscription{}, errUnknownRoute
}

func (s *Server) subscription(c call) (reply, error) {
	t, u, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	return ok(subscriptionAnswer(t, u), nil)
}

// updateSubscription changes what a partner can change of a subscription. With
// If-Match it does so only if nobody else has in the meantime.
func (s *Server) updateSubscription(c call) (reply, error) {
	t, u, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	var in struct {
		FriendlyName     *string `json:"friendlyName"`
		Quantity         *int    `json:"quantity"`
		AutoRenewEnabled *bool   `json:"autoRenewEnabled"`
		Status           *string `json:"status"`
	}
	if err := bearer.ReadJSON(c.Request, &in); err != nil {
		return reply{}, invalid("The body is not a subscription.")
	}
	if in.Quantity != nil && (*in.Quantity < 1 || *in.Quantity > maxQuantity) {
		return reply{}, invalid("The quantity is out of range.")
	}
	if in.Status != nil && !slices.Contains([]string{"active", "suspended", "deleted"}, *in.Status) {
		return reply{}, invalid("The status is unknown.")
	}
	etag := strings.Trim(strings.TrimPrefix(c.Header.Get("If-Match"), "W/"), `"`)
	if etag == "*" {
		etag = ""
	}
	u, matched := s.cfg.Directory.UpdateSubscription(t.ID, u.ID, etag, func(u *directory.Subscription) {
		set(&u.Name, in.FriendlyName)
		set(&u.Quantity, in.Quantity)
		set(&u.AutoRenew, in.AutoRenewEnabled)
		set(&u.Status, in.Status)
	})
	if !matched {
		return reply{}, errETag
	}
	return ok(subscriptionAnswer(t, u), nil)
}

// set stores the new value, if there is one.
func set[T any](at, value *T) {
	if value != nil {
		*at = *value
	}
}
