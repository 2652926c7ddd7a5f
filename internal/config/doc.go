// Package config reads the configuration of a hub and of an uplink.
//
// There are three sources, each overriding the one before: a YAML file, the
// environment (HUB_MQTT_LISTEN for mqtt.listen; UPLINK_… for an uplink) and
// --set a.b.c=value. All go through the same declared fields: a Field says
// path, type, default, meaning and whether it is built yet, and from it come
// the checks, the printed default and the documentation.
//
// Every fault found is a Problem that says where (file:line:column, the
// variable, the flag), what, and what to do; one load reports all of them.
//
// Relative paths in a file are relative to that file's folder; from the
// environment and flags, to the working directory.
//
// The package is a leaf but for the types of pkg/log/record and the name rule
// of pkg/forward: what only a part can judge (route patterns, expressions) is
// judged by Checks that the caller passes to Load.
package config
