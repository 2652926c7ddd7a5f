package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashConfig says what a power cut keeps.
type CrashConfig struct {
	// UnsyncedPercent, 0 to 100, is the chance of everything that was not
	// synced to have reached the device all the same: of each 512-byte sector,
	// each file's new size and each change of a name, on its own. 0 leaves
	// exactly what was synced; 100 leaves everything, as kill -9 does.
	UnsyncedPercent int
	// RNG decides; the same seed and history give the same clone. nil is a
	// generator with a fixed seed.
	RNG *rand.Rand
}

// CrashClone is the file system as it would be found after a power cut at
// this moment. m goes on unharmed, and nothing is shared with it. It may be
// called at any time, from a rule of a Fault too.
//
//   - What was synced is there: bytes and sizes by File.Sync, names by SyncDir.
//   - Of each sector written since, the old or the new bytes are there (torn
//     writes). A size that grew may be the old one, the new one or one
//     between; bytes inside it that were never written are zeros.
//   - Of each create, remove and rename since, all or nothing is there, each
//     on its own: the older may be lost and the newer kept. A rename is never
//     half done (D3).
//
// Everything in the clone is durable.
func (m *Mem) CrashClone(cfg CrashConfig) *Mem {
	rng := cfg.RNG
	if rng == nil {
		rng = rand.New(rand.NewPCG(0, 0))
	}
	c := cut{
		keep:  func() bool { return rng.IntN(100) < cfg.UnsyncedPercent },
		rng:   rng,
		names: map[*inode]map[string]*inode{},
		made:  map[*inode]*inode{},
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range m.pending {
		if c.keep() {
			c.apply(op)
		}
	}
	out := &Mem{root: c.clone(m.root), total: m.total}
	out.used = out.root.allocated()
	return out
}

// cut is one power cut.
type cut struct {
	keep  func() bool
	rng   *rand.Rand
	names map[*inode]map[string]*inode // directories changed by kept changes
	made  map[*inode]*inode            // inode → its clone
}

// of is the names that d has on the device after the cut.
func (c *cut) of(d *inode) map[string]*inode {
	if n, ok := c.names[d]; ok {
		return n
	}
	return d.durableNames
}

// apply is dirOp.apply on the side.
func (c *cut) apply(op dirOp) {
	for _, d := range []*inode{op.from, op.to} {
		if d != nil && c.names[d] == nil {
			c.names[d] = maps.Clone(d.durableNames)
		}
	}
	if op.from != nil && c.names[op.from][op.fromName] == op.node {
		delete(c.names[op.from], op.fromName)
	}
	if op.to != nil {
		c.names[op.to][op.toName] = op.node
	}
}

// clone copies n and what lies below it. A file that two names lead to, since
// the removal of the one was lost, stays one file; a directory stays in the
// first place.
func (c *cut) clone(n *inode) *inode {
	if done, ok := c.made[n]; ok {
		return done
	}
	if !n.isDir() {
		out := &inode{data: n.data.afterCut(c)}
		c.made[n] = out
		return out
	}
	out := newDir()
	c.made[n] = out
	names := c.of(n)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		child := names[name]
		if child.isDir() && c.made[child] != nil {
			continue
		}
		k := c.clone(child)
		out.names[name], out.durableNames[name] = k, k
	}
	return out
}

// allocated is how many bytes the blocks of all files below n take; files
// with two names count twice.
func (n *inode) allocated() int64 {
	total := n.data.allocated()
	for _, c := range n.names {
		total += c.allocated()
	}
	return total
}

// afterCut is what the device has of the file.
func (c *content) afterCut(x *cut) content {
	size := c.durableSize
	if c.size != c.durableSize && x.keep() {
		size = c.size
	} else if c.size > c.durableSize && x.keep() {
		// Some of the growth: pages reach the device in any order, and the
		// size follows them.
		size += x.rng.Int64N(c.size - c.durableSize + 1)
	}
	out := content{size: size, durableSize: size}
	for i := range blocks(size) {
		out.durable = append(out.durable, c.blockAfterCut(i, x))
	}
	if tail := int(size % blockSize); tail != 0 {
		if last := out.durable[len(out.durable)-1]; last != nil {
			own := *last
			clear(own[tail:])
			out.durable[len(out.durable)-1] = &own
		}
	}
	out.now = slices.Clone(out.durable)
	return out
}

var zeros block

// blockAfterCut mixes the sectors of block i.
func (c *content) blockAfterCut(i int, x *cut) *block {
	old := at(c.durable, i)
	if i >= len(c.now) || c.now[i] == old {
		return old
	}
	was, now := old, c.now[i]
	if was == nil {
		was = &zeros
	}
	if now == nil {
		now = &zeros
	}
	mixed := *was
	for s := 0; s < blockSize; s += sectorSize {
		if [sectorSize]byte(was[s:]) != [sectorSize]byte(now[s:]) && x.keep() {
			copy(mixed[s:s+sectorSize], now[s:])
		}
	}
	return &mixed
}
