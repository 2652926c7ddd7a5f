// Package obs is how a hub and an uplink are watched from outside: metrics in
// Prometheus form and logs. It is the only importer of client_golang.
//
// No part counts in Prometheus types. Each has Stats(), a plain snapshot, and
// a function here or in package obs/parts turns it into samples at each
// scrape, so a part that nobody scrapes pays nothing.
//
// Names are hub_<part>_<thing>_<unit> and uplink_<thing>_<unit>. Labels are
// topics, partitions, processes and fixed words, never client ids or MQTT
// topics, whose number nobody bounds.
package obs
