package keyvault

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/mandate-sam/mandate"
)

// An Identity is who we are to a vault. It is one of: a service principal with
// a certificate, a secret or a federated token; the managed identity of the
// machine; the workload identity of the pod.
type Identity struct {
	Tenant mandate.TenantID // the vault's own; not for Managed and Workload
	Client mandate.AppID    // for Managed it chooses among several, and may be zero

	Certificates []*x509.Certificate // with Key; the first is the identity's own
	Key          crypto.PrivateKey
	Secret       mandate.Secret
	TokenFile    string // a token of another issuer, read again before it expires

	Managed  bool // what Azure gives to the machine
	Workload bool // what AKS says in AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE
}

// String names the identity for people.
func (i Identity) String() string {
	switch {
	case i.Managed && i.Client == mandate.AppID{}:
		return "this machine's managed identity"
	case i.Managed:
		return "managed identity " + i.Client.String()
	case i.Workload:
		return "this pod's workload identity"
	}
	return "application " + i.Client.String()
}

// credential returns what signs the identity in. Entra's metadata is not asked
// for where the authority is: that is configured.
func (i Identity) credential(o azcore.ClientOptions, c mandate.Cloud) (azcore.TokenCredential, error) {
	tenant, client := i.Tenant.String(), i.Client.String()
	switch {
	case i.Managed:
		return managed(i.Client)
	case i.Workload:
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: c.Custom})
	case i.Key != nil:
		return azidentity.NewClientCertificateCredential(tenant, client, i.Certificates, i.Key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: c.Custom})
	case !i.Secret.IsZero():
		return azidentity.NewClientSecretCredential(tenant, client, i.Secret.Reveal(),
			&azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: c.Custom})
	case i.TokenFile != "":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: o, DisableInstanceDiscovery: c.Custom, TenantID: tenant, ClientID: client, TokenFilePath: i.TokenFile,
		})
	}
	return nil, mandate.Invalid("identity", "has nothing to sign in with: a certificate, a secret, a token file, a managed or a workload identity")
}

// managed returns the machine's identity. Its endpoint is on the machine, so
// neither our certificate authorities nor our proxy have to do with it.
func managed(client mandate.AppID) (*azidentity.ManagedIdentityCredential, error) {
	o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: azcore.ClientOptions{
		Retry: policy.RetryOptions{MaxRetries: 3, TryTimeout: tryTimeout, MaxRetryDelay: longestWait},
	}}
	if client != (mandate.AppID{}) {
		o.ID = azidentity.ClientID(client.String())
	}
	return azidentity.NewManagedIdentityCredential(o)
}

// exchange are the audiences of tokens that Entra takes as client assertions,
// by cloud.
var exchange = map[string]string{
	"usgov": "api://AzureADTokenExchangeUSGov",
	"china": "api://AzureADTokenExchangeChina",
}

// Assertion returns the tokens by which an application can sign in with the
// machine's managed identity instead of a credential of its own ("Configure an
// application to trust a managed identity"): each with its end.
func Assertion(client mandate.AppID, cloud string) (func(context.Context) (mandate.Secret, time.Time, error), error) {
	credential, err := managed(client)
	if err != nil {
		return nil, err
	}
	audience := exchange[cloud]
	if audience == "" {
		audience = "api://AzureADTokenExchange"
	}
	who := Identity{Managed: true, Client: client}.String()
	return func(ctx context.Context) (mandate.Secret, time.Time, error) {
		tok, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}})
		if err != nil {
			return mandate.Secret{}, time.Time{}, fmt.Errorf("token of %s: %w", who, signInError(err))
		}
		return mandate.NewSecret(tok.Token), tok.ExpiresOn, nil
	}, nil
}
