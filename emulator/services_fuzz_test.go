package emulator_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/directory"
)

// FuzzServices sends anything to the services, with good tokens. Whatever it
// is, the answer is one of the service's own: JSON, never a 500, and no word
// of what went wrong inside.
func FuzzServices(f *testing.F) {
	e, err := emulator.Open(emulator.Config{Seed: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	object := directory.ObjectID(partnerApp)
	relation := directory.RelationshipID(emulator.ContosoTenant, emulator.ProsewareTenant)
	group := "/subscriptions/50000000-0004-4000-8000-000000000000/resourceGroups/rg-web"
	for _, s := range []struct {
		service            byte
		method, path, body string
	}{
		{0, "GET", "/v1/customers?size=1&seekOperation=Next&continuationToken=x", ""},
		{0, "GET", `/v1/customers?filter={"Field":"Domain","Value":"a","Operator":"starts_with"}`, ""},
		{0, "POST", "/v1/customers/" + emulator.AdatumTenant + "/applicationconsents", consentTo},
		{0, "DELETE", "/v1/customers/" + emulator.AdatumTenant + "/applicationconsents/" + emulator.ApplicationID, ""},
		{0, "POST", "/v1/customers/" + emulator.AdatumTenant + "/orders", `{"lineItems":[{"offerId":"x","quantity":1}]}`},
		{0, "PATCH", "/v1//customers/" + emulator.AdatumTenant + "/subscriptions/50000000-0004-4000-8000-000000000000", `{"quantity":null}`},
		{0, "GET", "/v1/partnerRequests", ""},
		{0, "GET", "/v1/applicationmfaadoptionstatus?startDate=2026-01-01&endDate=2026-13-01", ""},
		{0, "GET", "/v1/nonMfaCompliantPartnerPrincipals?size=1", ""},
		{1, "GET", "/v1.0/users?$filter=startswith(displayName,'a') and id eq null&$top=1&$skiptoken=MQ&$select=id", ""},
		{1, "POST", "/v1.0/applications", `{"displayName":"x","web":{"redirectUris":["https://localhost"]},"requiredResourceAccess":[{"resourceAppId":"","resourceAccess":[null]}]}`},
		{1, "PATCH", "/v1.0/applications/" + object, `{"keyCredentials":[{"key":"AAAA","type":"AsymmetricX509Cert","usage":"Verify"}]}`},
		{1, "POST", "/v1.0/applications/" + object + "/addPassword", `{"passwordCredential":{"endDateTime":"9999-12-31T23:59:59Z"}}`},
		{1, "POST", "/v1.0/applications/" + object + "/addKey", `{"keyCredential":{},"proof":"e30.e30.e30"}`},
		{1, "GET", "/v1.0/applications(appId='" + partnerApp + "')", ""},
		{1, "POST", "/v1.0/servicePrincipals", `{"appId":"fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"}`},
		{1, "POST", "/v1.0/oauth2PermissionGrants", `{"consentType":"Principal","principalId":null}`},
		{1, "POST", "/v1.0/policies/tokenLifetimePolicies", `{"displayName":"","definition":["{\"TokenLifetimePolicy\":{\"Version\":1,\"AccessTokenLifetime\":\"1.00:00:00\"}}"]}`},
		{1, "GET", "/v1.0/tenantRelationships/delegatedAdminRelationships/x/requests", ""},
		{1, "POST", "/v1.0/tenantRelationships/delegatedAdminRelationships", `{"displayName":"x","duration":"P1Y2M3DT4H5M6S","autoExtendDuration":"P180D","accessDetails":{"unifiedRoles":[{"roleDefinitionId":"x"}]}}`},
		{1, "PATCH", "/v1.0/tenantRelationships/delegatedAdminRelationships/" + relation, `{"customer":null,"accessDetails":{"unifiedRoles":null}}`},
		{1, "POST", "/v1.0/tenantRelationships/delegatedAdminRelationships/" + relation + "/requests", `{"action":"approve"}`},
		{1, "POST", "/v1.0/tenantRelationships/delegatedAdminRelationships/" + relation + "/accessAssignments", `{"accessContainer":{"accessContainerId":"b0000000-0000-4000-8000-00000000c0de","accessContainerType":"securityGroup"}}`},
		{1, "DELETE", "/v1.0/tenantRelationships/delegatedAdminRelationships/" + relation + "/accessAssignments/x", ""},
		{1, "POST", "/v1.0/$batch", `{"requests":[{"id":"1","method":"GET","url":"/me","dependsOn":["2"]},{"id":"2","method":"POST","url":"applications","headers":{"content-type":"x"},"body":{}}]}`},
		{1, "PATCH", "/v1.0/policies/defaultAppManagementPolicy", `{"isEnabled":false,"applicationRestrictions":{"passwordCredentials":[{"restrictionType":"passwordLifetime","maxLifetime":"PT"}]}}`},
		{2, "PUT", group + "?api-version=1", `{"location":"westeurope","tags":{"a":"b"}}`},
		{2, "PUT", group + "/providers/Microsoft.Resources/deployments/d?api-version=1", `{"properties":{"mode":"Complete","template":{}}}`},
		{2, "GET", "/tenants?api-version=1", "%zz"},
		{2, "PATCH", group + "?api-version=1", `{"tags":{"a":null}}`},
		{2, "DELETE", group + "-gone?api-version=1", ""},
		{2, "GET", "/subscriptions/50000000-0004-4000-8000-000000000000/operationresults/x?api-version=1", ""},
	} {
		f.Add(s.service, s.method, s.path, s.body)
	}
	var tokens [3]string
	f.Fuzz(func(t *testing.T, service byte, method, path, body string) {
		if tokens[0] == "" {
			if err := e.Consent("contoso.example", emulator.ApplicationID, emulator.Graph, "DelegatedAdminRelationship.ReadWrite.All"); err != nil {
				t.Fatal(err)
			}
			graph, rt := writer(t, e)
			tokens = [3]string{consented(t, e, 2, "admin@contoso.example").str("access_token"), graph, armToken(t, e, "adatum.example", rt)}
		}
		i := int(service) % 3
		base := []string{e.Endpoints().PartnerCenter, e.Endpoints().Graph, e.Endpoints().ARM}[i]
		req, err := http.NewRequest(method, base+"/"+strings.TrimPrefix(path, "/"), strings.NewReader(body))
		if err != nil || req.URL.Host != strings.TrimPrefix(base, "https://") || method == http.MethodConnect || strings.EqualFold(method, "HEAD") {
			return // no request to this service, or one whose answer has no body to look at
		}
		if strings.Contains(strings.ToLower(path+body), "revokesigninsessions") {
			return // would take away the tokens
		}
		req.Header.Set("Authorization", "Bearer "+tokens[i])
		var sent bool
		res, err := e.Client().Do(req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			WroteHeaders: func() { sent = true },
		})))
		if err != nil && !sent {
			return // the client itself refused the request
		}
		if err != nil { // a handler that panics closes the connection
			t.Fatalf("%s %s %q: no answer: %v", method, path, body, err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode >= 500 {
			t.Fatalf("%s %s %q: got %d, %q, %v", method, path, body, res.StatusCode, b, err)
		}
		if len(b) > 0 && !json.Valid(b) && res.StatusCode != http.StatusBadRequest {
			t.Fatalf("%s %s %q: got %d, %q", method, path, body, res.StatusCode, b)
		}
		for _, word := range []string{"json: ", "unmarshal", "strconv", "runtime error", "x509:"} {
			if res.StatusCode >= 400 && strings.Contains(string(b), word) {
				t.Fatalf("%s %s %q: the answer talks of the program: %q", method, path, body, b)
			}
		}
	})
}
