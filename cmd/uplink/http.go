package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"edgehub/internal/obs"
	"edgehub/pkg/bridge/uplink"
)

// status is what /api/v1/status answers and `uplink status` prints.
type status struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	Problem string `json:"problem,omitempty"` // why it is not ready
	Backlog int64  `json:"backlog"`           // records to forward
	uplink.Stats
}

func statusOf(s uplink.Stats) status {
	st := status{Version: version(), Ready: true, Backlog: s.Backlog(), Stats: s}
	if err := s.Ready(); err != nil {
		st.Ready, st.Problem = false, err.Error()
	}
	return st
}

// handler serves health, metrics and status.
func handler(u *uplink.Uplink) http.Handler {
	m := obs.NewMetrics("uplink", version())
	m.Add(func(s *obs.Scrape) { scrape(s, u.Stats()) })
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		// It lives: that hub or core are away is no fault of the uplink, and
		// a restart mends nothing.
		answer(w, http.StatusOK, statusOf(u.Stats()))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		code := http.StatusOK
		st := statusOf(u.Stats())
		if !st.Ready {
			code = http.StatusServiceUnavailable
		}
		answer(w, code, struct {
			Ready   bool   `json:"ready"`
			Problem string `json:"problem,omitempty"`
		}{st.Ready, st.Problem})
	})
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, statusOf(u.Stats()))
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "uplink: /healthz /readyz /metrics /api/v1/status")
	})
	return mux
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}
