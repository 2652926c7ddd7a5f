package app

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"edgehub/internal/config"
	"edgehub/internal/expr"
	"edgehub/pkg/auth"
	"edgehub/pkg/bridge/mqtt"
	"edgehub/pkg/process"
	"edgehub/pkg/route"
)

// LoadConfig reads the configuration of a hub with everything checked that
// can be without starting it.
func LoadConfig(path string, env, set []string) (*config.Config, error) {
	return config.Load(path, env, set, checkRoutes, checkProcesses, checkCertificates, checkPermissions)
}

func checkRoutes(c *config.Config, r *config.Report) {
	_, err := route.Compile(rules(c))
	for _, e := range flatten(err) {
		var re *route.RuleError
		if !errors.As(e, &re) {
			r.Addf("routes", "%s", e)
			continue
		}
		at := fmt.Sprintf("routes[%d].%s", re.Index, re.Field)
		r.Addf(at, "%s: %s", at, re.Msg)
	}
}

func checkCertificates(c *config.Config, r *config.Report) {
	for at, t := range tlsSections(c) {
		_, err := auth.LoadCertificates(tlsFiles(t))
		var fe *auth.FileError
		switch {
		case errors.As(err, &fe):
			r.Addf(at+"."+fe.Field, "%s.%s: %s", at, fe.Field, fe)
		case err != nil:
			r.Addf(at, "%s: %s", at, err)
		}
	}
}

func checkPermissions(c *config.Config, r *config.Report) {
	if c.MQTT.Users != "" {
		if _, err := config.LoadUsers(c.MQTT.Users); errors.Is(err, fs.ErrNotExist) {
			r.Addf("mqtt.users", "mqtt.users: %s does not exist: make it by `hub user add NAME --file %[1]s`", c.MQTT.Users)
		} else if err != nil {
			r.Addf("mqtt.users", "mqtt.users: %s", err)
		}
	}
	var pe *mqtt.PermissionError
	if _, err := acl(c); errors.As(err, &pe) {
		at := fmt.Sprintf("mqtt.acl[%d].%s[%d]", pe.Index, pe.Field, pe.Filter)
		r.Addf(at, "%s: %s", at, pe.Msg)
	}
}

// acl is nil if everybody may do everything: without users and entries.
func acl(c *config.Config) (*mqtt.ACL, error) {
	if c.MQTT.Users == "" && len(c.MQTT.ACL) == 0 {
		return nil, nil
	}
	list := make([]mqtt.Permission, len(c.MQTT.ACL))
	for i, e := range c.MQTT.ACL {
		list[i] = mqtt.Permission{User: e.User, Publish: e.Publish, Subscribe: e.Subscribe}
	}
	return mqtt.NewACL(list)
}

// tlsSections are the TLS listeners that are to be opened, by their paths.
func tlsSections(c *config.Config) map[string]config.TLS {
	out := map[string]config.TLS{}
	if c.MQTT.TLS.On() {
		out["mqtt.tls"] = c.MQTT.TLS
	}
	if c.MQTT.WebSocket.TLS.On() {
		out["mqtt.websocket.tls"] = c.MQTT.WebSocket.TLS
	}
	return out
}

func tlsFiles(t config.TLS) auth.Files {
	return auth.Files{Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}

func checkProcesses(c *config.Config, r *config.Report) {
	for i, d := range definitions(c) {
		err := process.Check(d)
		if err == nil {
			continue
		}
		text := strings.TrimPrefix(err.Error(), fmt.Sprintf("process %q: ", d.Name))
		at := fmt.Sprintf("process[%d]", i)
		// The error begins with the key at fault: "where: …", "compute.mean: …".
		if key, _, ok := strings.Cut(text, ": "); ok && !strings.ContainsAny(key, " \"") {
			at += "." + key
			text = text[len(key)+2:]
		}
		var ee *expr.Error
		if errors.As(err, &ee) {
			text = fmt.Sprintf("in %q, character %d: %s", ee.Source, ee.Column, ee.Message)
		}
		r.Addf(at, "%s: %s", at, text)
	}
}

func rules(c *config.Config) []route.Rule {
	out := make([]route.Rule, len(c.Routes))
	for i, r := range c.Routes {
		out[i] = route.Rule{
			Match: r.Match, Topic: r.Topic, Key: r.Key, Payload: r.Payload, Drop: r.Drop,
			Time: route.TimeRule{Field: r.Time.Field, Format: r.Time.Format, Zone: r.Time.Zone, MaxFuture: r.Time.MaxFuture},
		}
	}
	return out
}

func definitions(c *config.Config) []process.Definition {
	out := make([]process.Definition, len(c.Process))
	for i, p := range c.Process {
		out[i] = process.Definition{
			Name: p.Name, From: p.From, Where: p.Where, By: p.By,
			Window: process.Window{Kind: p.Window.Kind, Size: p.Window.Size},
			Grace:  p.Grace, Emit: p.Emit, To: p.To,
		}
		for _, x := range p.Compute {
			out[i].Compute = append(out[i].Compute, process.Compute{Name: x.Name, Expr: x.Expr})
		}
	}
	return out
}
