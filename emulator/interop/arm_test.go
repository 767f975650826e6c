package interop_test

import (
	"errors"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	armcore "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armsubscriptions"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/fault"
)

func TestARM(t *testing.T) {
	t.Run("armsubscriptions", testSubscriptions)
}

func testSubscriptions(t *testing.T) {
	ran(t, "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armsubscriptions")
	e := start(t)
	cred, err := azidentity.NewClientSecretCredential(emulator.AdatumTenant, emulator.ApplicationID, emulator.ApplicationSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: azure(e), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := armsubscriptions.NewClient(cred, &armcore.ClientOptions{ClientOptions: azure(e)})
	if err != nil {
		t.Fatal(err)
	}
	var found []*armsubscriptions.Subscription
	for pages := c.NewListPager(nil); pages.More(); {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, page.Value...)
	}
	if len(found) != 1 || *found[0].TenantID != emulator.AdatumTenant || *found[0].State != armsubscriptions.SubscriptionStateEnabled {
		t.Fatalf("got %d subscriptions, want one of Adatum", len(found))
	}
	one, err := c.Get(t.Context(), *found[0].SubscriptionID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *one.DisplayName != *found[0].DisplayName || *one.ID != "/subscriptions/"+*one.SubscriptionID {
		t.Errorf("got %s (%s), want %s", *one.ID, *one.DisplayName, *found[0].DisplayName)
	}
	_, err = c.Get(t.Context(), "50000000-0000-4000-8000-00000000ffff", nil)
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != 404 || refused.ErrorCode != "SubscriptionNotFound" {
		t.Errorf("an unknown subscription: got %v", err)
	}

	tenants, err := armsubscriptions.NewTenantsClient(cred, &armcore.ClientOptions{ClientOptions: azure(e)})
	if err != nil {
		t.Fatal(err)
	}
	home, err := tenants.NewListPager(nil).NextPage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(home.Value) != 1 || *home.Value[0].TenantID != emulator.AdatumTenant {
		t.Errorf("got %d tenants, want Adatum", len(home.Value))
	}

	// A challenge for newer claims: the client gets another token, and says
	// nothing about it.
	e.Dial(func(d *emulator.Dials) { d.Challenges = []fault.Challenge{{Service: "arm"}} })
	before := len(e.TokenRequests())
	if _, err := c.Get(t.Context(), *found[0].SubscriptionID, nil); err != nil {
		t.Error(err)
	}
	if n := len(e.TokenRequests()) - before; n != 1 {
		t.Errorf("after the challenge the client asked for %d tokens, want 1", n)
	}
}
