package arm

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

func groupObject(subscription string, g directory.ResourceGroup) map[string]any {
	state := "Succeeded"
	if g.Deletion != "" {
		state = "Deleting"
	}
	m := map[string]any{
		"id": "/subscriptions/" + subscription + "/resourceGroups/" + g.Name, "name": g.Name,
		"type": "Microsoft.Resources/resourceGroups", "location": g.Location,
		"properties": map[string]any{"provisioningState": state},
	}
	if g.Tags != nil {
		m["tags"] = g.Tags
	}
	return m
}

func (s *Server) groups(c call) (reply, error) {
	list := []any{}
	for _, g := range s.cfg.Directory.ResourceGroups(c.home.Subscription) {
		list = append(list, groupObject(c.home.Subscription, g))
	}
	return ok(map[string]any{"value": list})
}

// named is the resource group of the path.
func (s *Server) named(c call) (directory.ResourceGroup, error) {
	for _, g := range s.cfg.Directory.ResourceGroups(c.home.Subscription) {
		if strings.EqualFold(g.Name, c.names[1]) {
			return g, nil
		}
	}
	return directory.ResourceGroup{}, errGroup
}

// group shows the resource group. Asking for one that is being deleted brings
// its deletion on, since some clients ask until it is gone.
func (s *Server) group(c call) (reply, error) {
	g, err := s.named(c)
	if err != nil {
		return reply{}, err
	}
	if g.Deletion != "" && s.advance(g.Deletion) {
		return reply{}, errGroup
	}
	return ok(groupObject(c.home.Subscription, g))
}

// putGroup makes a resource group, or changes the tags of one.
func (s *Server) putGroup(c call) (reply, error) {
	var in struct {
		Location string            `json:"location"`
		Tags     map[string]string `json:"tags"`
	}
	if bearer.ReadJSON(c.Request, &in) != nil {
		return reply{}, errContent
	}
	if in.Location == "" {
		return reply{}, errLocation
	}
	if !allowedName.MatchString(c.names[1]) || strings.HasSuffix(c.names[1], ".") {
		return reply{}, errName
	}
	g := directory.ResourceGroup{Name: c.names[1], Location: strings.ToLower(strings.ReplaceAll(in.Location, " ", "")), Tags: in.Tags}
	if old, err := s.named(c); err == nil {
		if old.Deletion != "" {
			return reply{}, errDeleting
		}
		if old.Location != g.Location {
			return reply{}, errMoved
		}
		g.Name = old.Name
	}
	status := http.StatusOK
	if s.cfg.Directory.SetResourceGroup(c.home.Subscription, g) {
		status = http.StatusCreated
	}
	return reply{status: status, body: groupObject(c.home.Subscription, g)}, nil
}

func deploymentID(c call, x directory.Deployment) string {
	return "/subscriptions/" + c.home.Subscription + "/resourceGroups/" + c.names[1] + "/providers/Microsoft.Resources/deployments/" + x.Name
}

func deploymentObject(c call, x directory.Deployment) map[string]any {
	state := "Succeeded"
	if !x.Seen {
		state = "Accepted"
	}
	return map[string]any{
		"id": deploymentID(c, x), "name": x.Name, "type": "Microsoft.Resources/deployments",
		"properties": map[string]any{
			"provisioningState": state, "mode": x.Mode, "timestamp": x.Timestamp, "correlationId": x.ID, "duration": "PT1S",
			"parameters": x.Parameters, "outputs": map[string]any{}, "outputResources": []any{}, "providers": []any{}, "dependencies": []any{},
		},
	}
}

func (s *Server) deployments(c call) (reply, error) {
	if _, err := s.named(c); err != nil {
		return reply{}, err
	}
	list := []any{}
	for _, x := range s.cfg.Directory.Deployments(c.home.Subscription, c.names[1]) {
		list = append(list, deploymentObject(c, x))
	}
	return ok(map[string]any{"value": list})
}

// asked is the deployment of the path. Asking for it completes it.
func (s *Server) asked(c call) (directory.Deployment, error) {
	if _, err := s.named(c); err != nil {
		return directory.Deployment{}, err
	}
	for _, x := range s.cfg.Directory.Deployments(c.home.Subscription, c.names[1]) {
		if strings.EqualFold(x.Name, c.names[2]) {
			x.Seen = true
			s.cfg.Directory.SetDeployment(c.home.Subscription, c.names[1], x)
			return x, nil
		}
	}
	return directory.Deployment{}, errDeployment
}

func (s *Server) deployment(c call) (reply, error) {
	x, err := s.asked(c)
	if err != nil {
		return reply{}, err
	}
	return ok(deploymentObject(c, x))
}

// putDeployment accepts a deployment. The answer says where to ask how it goes.
func (s *Server) putDeployment(c call) (reply, error) {
	if g, err := s.named(c); err != nil {
		return reply{}, err
	} else if g.Deletion != "" {
		return reply{}, errDeleting
	}
	x, err := s.readDeployment(c)
	if err != nil {
		return reply{}, err
	}
	status := http.StatusOK
	if s.cfg.Directory.SetDeployment(c.home.Subscription, c.names[1], x) {
		status = http.StatusCreated
	}
	poll := "https://" + c.Host + deploymentID(c, x) + "/operationStatuses/" + x.ID + "?api-version=2021-04-01"
	return reply{status: status, body: deploymentObject(c, x), headers: map[string]string{"Azure-AsyncOperation": poll}}, nil
}

// readDeployment is the deployment that the request describes.
func (s *Server) readDeployment(c call) (directory.Deployment, error) {
	var in struct {
		Properties *struct {
			Mode         string          `json:"mode"`
			Template     json.RawMessage `json:"template"`
			TemplateLink json.RawMessage `json:"templateLink"`
			Parameters   map[string]any  `json:"parameters"`
		} `json:"properties"`
	}
	if bearer.ReadJSON(c.Request, &in) != nil {
		return directory.Deployment{}, errContent
	}
	p := in.Properties
	if p == nil || len(p.Template)+len(p.TemplateLink) == 0 || p.Mode != "Incremental" && p.Mode != "Complete" {
		return directory.Deployment{}, errTemplate
	}
	if !allowedName.MatchString(c.names[2]) || len(c.names[2]) > 64 {
		return directory.Deployment{}, errName
	}
	return directory.Deployment{ID: s.cfg.Chance.GUID(), Name: c.names[2], Mode: p.Mode, Parameters: p.Parameters, Timestamp: s.cfg.Dials.Now().UTC().Format(time.RFC3339Nano)}, nil
}

// validate says whether the deployment could be made.
func (s *Server) validate(c call) (reply, error) {
	if _, err := s.named(c); err != nil {
		return reply{}, err
	}
	x, err := s.readDeployment(c)
	if err != nil {
		return reply{}, err
	}
	x.Seen = true
	return ok(deploymentObject(c, x))
}

func (s *Server) deploymentExists(c call) (reply, error) {
	_, err := s.asked(c)
	return reply{status: http.StatusNoContent}, err
}

// operation says how a deployment goes.
func (s *Server) operation(c call) (reply, error) {
	x, err := s.asked(c)
	if err != nil {
		return reply{}, err
	}
	if !strings.EqualFold(x.ID, c.names[3]) {
		return reply{}, errDeployment
	}
	return ok(map[string]any{"status": "Succeeded"})
}
