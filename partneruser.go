package mandate

import "time"

// The roles of people of a partner on its pages.
const (
	PartnerViewer     = "viewer"     // sees the grant and what was done with it
	PartnerRenewer    = "renewer"    // and renews it
	PartnerWithdrawer = "withdrawer" // and withdraws it
)

// PartnerRoles returns every role that somebody of a partner can have.
func PartnerRoles() []string { return []string{PartnerViewer, PartnerRenewer, PartnerWithdrawer} }

// A PartnerUser is somebody of a partner whom an operator has given roles on
// the partner's pages. Who it is, is (tenant of the partner, object).
type PartnerUser struct {
	User  ObjectID  `json:"user"`
	Roles []string  `json:"roles"` // sorted
	Since time.Time `json:"since"` // when the last of them was given
	By    string    `json:"by"`    // who gave that
}
