// Package kafka serves the Kafka protocol over a Store: an edge hub's log or
// the core's streams. Consumers and producers (kcat, librdkafka, franz-go,
// Java, kafkajs) use it unchanged.
//
// A request goes through four gates before anything is done for it:
//
//  1. frame.go: the length in front is checked against the cap, and memory is
//     taken from a common budget as the bytes arrive, not as they are
//     announced.
//  2. header.go: our own parser of the request header. An unknown key or an
//     unsupported version ends here; its body is never looked at.
//  3. walk.go: a walk over the body by the schema of (key, version) that
//     bounds every length, array and tag count.
//  4. Only then does kmsg decode the body.
//
// Then the handler of the key runs (one NN_name.go per API key, numbered as
// Kafka numbers them), and its answer is written before the next request of
// that connection is read: one request in flight per connection, answers in
// order. Whatever a client sends can close that connection only.
//
// What is left out on purpose: transactions, consumer groups (JoinGroup and
// the rest; a group's offsets work without them), fetch sessions (a session
// id of 0 in a response means "none" and every client falls back), topic ids
// in Fetch and Produce, and the formats of messages before RecordBatch v2.
//
// Lock order: Server.mu, then nothing. Handlers hold no lock of this package
// while they call the Store.
package kafka
