package emulator

import "github.com/mandate-sam/mandate/emulator/directory"

// Ids of the fixture. They never change.
const (
	ApplicationID     = directory.ApplicationID     // Northwind Control Panel, of the vendor
	ApplicationSecret = directory.ApplicationSecret // its client secret

	CPVTenant       = directory.CPVTenant       // Northwind Panels, northwind.example: the vendor
	ContosoTenant   = directory.ContosoTenant   // Contoso CSP, contoso.example: a partner
	FabrikamTenant  = directory.FabrikamTenant  // Fabrikam Cloud, fabrikam.example: a partner
	AdatumTenant    = directory.AdatumTenant    // customer of Contoso
	LitwareTenant   = directory.LitwareTenant   // customer of Contoso and of Fabrikam
	ProsewareTenant = directory.ProsewareTenant // customer of Contoso
	TailspinTenant  = directory.TailspinTenant  // customer of Fabrikam
	WingtipTenant   = directory.WingtipTenant   // customer of Fabrikam, where the application is not consented

	GuestHomeTenant = directory.GuestHomeTenant // home of the guests; not a tenant of the emulator
)

// Application ids of the resources.
const (
	PartnerCenter = directory.PartnerCenter
	Graph         = directory.Graph
	ARM           = directory.ARM
	KeyVault      = directory.KeyVault
	AzureADGraph  = directory.AzureADGraph // retired
)
