//go:build race

package payload

const raceEnabled = true // sync.Pool drops at random
