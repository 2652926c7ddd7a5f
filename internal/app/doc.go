// Package app is the composition root: it makes a running hub of a
// configuration. Only commands import it.
//
// An edge hub starts in the order http, log, topics, kafka, processes, mqtt,
// so that its health can be asked while the log recovers, and devices come
// last. It stops in the reverse order: first nothing new is taken in, then
// what was taken in is finished, then the log is closed.
//
// A core node starts http, core, kafka; its topics are created as soon as the
// cluster has a majority.
package app
