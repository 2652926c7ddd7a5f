// Package process computes windows over topics: tumbling event-time windows
// per key, exactly once, from one topic of the log into another.
//
// An Engine runs a task per process and input partition, each a goroutine that
// owns its state. A task reads records (input), feeds them to windows (a pure
// state machine) and appends what they issue. Its state is a function of the
// input and of its decisions, that is, the ticks of the wall clock:
//
//   - A step is one group in the log, atomic: the results and the late records,
//     and a record in topic __process that says how far the input is taken in
//     and which tick was decided, if any.
//   - A snapshot of the state goes to a file of its own now and then.
//   - After a start the newest snapshot is loaded and the input behind it read
//     again, with the recorded ticks at their places, up to the last step,
//     without issuing anything. From there it goes on live.
//
// E1: a result is in the log if and only if the step that holds it is.
// E2: a snapshot is written only when the steps that it contains are durable.
// E3: ticks take effect only by way of a step, so a replay repeats them.
// E4: steps that a snapshot of either generation lacks are not trimmed, nor is
// a task's last step.
//
// Lock order: Engine.mu is never held while a task's mu is taken or the log is
// called.
package process
