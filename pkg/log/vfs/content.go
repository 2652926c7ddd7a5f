package vfs

import "io"

const (
	blockSize  = 4096 // of a page of content
	sectorSize = 512  // what a device writes whole or not at all
)

type block [blockSize]byte

// content is what a file holds, twice: as readers see it and as the device
// has it. A nil block reads as zeros.
//
// C1: blocks in durable are never written to; a block that now and durable
// share is copied before a write. So clones may share them, too.
// C2: bytes of now behind size are zero.
type content struct {
	now         []*block
	size        int64
	durable     []*block
	durableSize int64
	// dirty are the indexes of blocks that the next sync writes. A block may
	// differ from the durable one and not be dirty: a failed sync lost it.
	dirty map[int]struct{}
}

// blocks is how many blocks size bytes take.
func blocks(size int64) int { return int((size + blockSize - 1) / blockSize) }

func at(list []*block, i int) *block {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// allocated is how many bytes the blocks take.
func (c *content) allocated() int64 {
	n := int64(0)
	for _, b := range c.now {
		if b != nil {
			n += blockSize
		}
	}
	return n
}

func (c *content) readAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) && off < c.size {
		from := int(off % blockSize)
		k := min(len(b)-n, blockSize-from, int(min(c.size-off, blockSize)))
		if blk := c.now[off/blockSize]; blk != nil {
			copy(b[n:n+k], blk[from:])
		} else {
			clear(b[n : n+k])
		}
		n += k
		off += int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// writeAt writes b as far as limit bytes of new blocks allow. It returns how
// much it wrote and how many bytes of blocks it took.
func (c *content) writeAt(b []byte, off, limit int64) (n int, grown int64) {
	for n < len(b) {
		i, from := int(off/blockSize), int(off%blockSize)
		if at(c.now, i) == nil {
			if grown+blockSize > limit {
				break
			}
			grown += blockSize
		}
		k := min(len(b)-n, blockSize-from)
		c.grow(i + 1)
		copy(c.writable(i)[from:], b[n:n+k])
		n += k
		off += int64(k)
		c.size = max(c.size, off)
	}
	return n, grown
}

// grow makes room for n blocks; new ones are zeros, and dirty where the
// device still has bytes from before a cut.
func (c *content) grow(n int) {
	for i := len(c.now); i < n; i++ {
		c.now = append(c.now, nil)
		if at(c.durable, i) != nil {
			c.mark(i)
		}
	}
}

func (c *content) mark(i int) {
	if c.dirty == nil {
		c.dirty = map[int]struct{}{}
	}
	c.dirty[i] = struct{}{}
}

// writable is block i of now, dirty and not shared (C1).
func (c *content) writable(i int) *block {
	c.mark(i)
	switch b := c.now[i]; {
	case b == nil:
		c.now[i] = new(block)
	case b == at(c.durable, i):
		own := *b
		c.now[i] = &own
	}
	return c.now[i]
}

// truncate sets the size and returns how many bytes of blocks it freed.
func (c *content) truncate(size int64) (freed int64) {
	n := blocks(size)
	c.grow(n)
	for i := n; i < len(c.now); i++ {
		if c.now[i] != nil {
			freed += blockSize
		}
		delete(c.dirty, i)
	}
	clear(c.now[n:])
	c.now = c.now[:n]
	if tail := int(size % blockSize); tail != 0 && size < c.size && c.now[n-1] != nil {
		clear(c.writable(n - 1)[tail:]) // C2
	}
	c.size = size
	return freed
}

// sync writes the dirty blocks and the size to the device.
func (c *content) sync() {
	for len(c.durable) < len(c.now) {
		c.durable = append(c.durable, nil)
	}
	clear(c.durable[len(c.now):])
	c.durable = c.durable[:len(c.now)]
	for i := range c.dirty {
		c.durable[i] = c.now[i]
	}
	clear(c.dirty)
	c.durableSize = c.size
}

// lose makes dirty blocks clean without writing them.
func (c *content) lose() { clear(c.dirty) }

// dropCache makes clean blocks read as the device has them. It returns how
// many bytes of blocks went away, lost by a failed sync.
func (c *content) dropCache() (freed int64) {
	was := c.allocated()
	for i := range c.now {
		if _, dirty := c.dirty[i]; !dirty {
			c.now[i] = at(c.durable, i)
		}
	}
	return was - c.allocated()
}
