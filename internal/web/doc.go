// Package web serves a hub's HTTP side: /healthz, /readyz, /metrics,
// /api/v1/status and a page that shows the status. It asks nobody but the
// functions it is given, and answers within seconds even when they hang.
package web
