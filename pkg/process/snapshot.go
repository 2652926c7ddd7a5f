package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// A snapshot file, <dir>/<number, 20 digits>.snap, little endian:
//
//	 0 magic "HUBSNAP" and version byte 1
//	 8 length of the packed body, uint32
//	12 length of the body, uint32
//	16 body, zstd
//	   CRC-32C of all before, uint32
//
// The body: lineage (state.go's varints, see step.go), seq, next, open windows,
// then the state of windows.
const (
	snapshotMagic  = "HUBSNAP\x01"
	snapshotSuffix = ".snap"
	// maxSnapshot bounds what is believed of a file's lengths, in bytes.
	maxSnapshot = 256 << 20
	generations = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshot is the state of a task between two records.
type snapshot struct {
	lineage
	seq    uint64 // of the last step that it contains; 0: none
	next   int64
	open   int // windows, for the notice when it has to be given up
	state  []byte
	number uint64 // of the file
}

func (s *snapshot) encode() ([]byte, error) {
	var body []byte
	body = s.lineage.append(body)
	body = binary.AppendUvarint(body, s.seq)
	body = binary.AppendVarint(body, s.next)
	body = binary.AppendUvarint(body, uint64(s.open))
	body = append(body, s.state...)
	if len(body) > maxSnapshot {
		return nil, fmt.Errorf("state of %d bytes is larger than a snapshot may be", len(body))
	}
	out := append([]byte(snapshotMagic), make([]byte, 8)...)
	out, err := record.Compress(record.Zstd, out, body)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(out[8:], uint32(len(out)-16))
	binary.LittleEndian.PutUint32(out[12:], uint32(len(body)))
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

func parseSnapshot(b []byte) (*snapshot, error) {
	if len(b) < 20 || string(b[:8]) != snapshotMagic {
		return nil, fmt.Errorf("%w: not a snapshot of this version", errState)
	}
	packed, size := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if int64(packed) != int64(len(b)-20) || size > maxSnapshot {
		return nil, fmt.Errorf("%w: snapshot has an impossible length", errState)
	}
	if crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("%w: snapshot fails its checksum", errState)
	}
	body, err := record.Decompress(record.Zstd, nil, b[16:len(b)-4], int(size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errState, err)
	}
	if len(body) != int(size) {
		return nil, fmt.Errorf("%w: snapshot is %d bytes, not %d", errState, len(body), size)
	}
	s := &snapshot{}
	r := reader{b: body}
	s.lineage.read(&r)
	s.seq, s.next, s.open, s.state = r.uint(), r.int(), int(r.uint()), r.b
	if r.err == nil && (s.next < 0 || s.start < 0) {
		r.fail("snapshot position")
	}
	return s, r.err
}

// store is the folder of a task's snapshots.
type store struct {
	fs     vfs.FS
	dir    string
	number uint64 // of the newest file
}

// open makes the folder and reads what is in it, newest first. Files that do
// not read are named in bad and left alone; save replaces them in time.
func (s *store) open() (good []*snapshot, bad []error, err error) {
	if err := vfs.MakeDirs(s.fs, s.dir); err != nil {
		return nil, nil, fmt.Errorf("make snapshot folder %s: %w", s.dir, err)
	}
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read snapshot folder %s: %w", s.dir, err)
	}
	for i := len(names) - 1; i >= 0; i-- {
		n, ok := snapshotNumber(names[i].Name)
		if !ok {
			continue
		}
		s.number = max(s.number, n)
		name := filepath.Join(s.dir, names[i].Name)
		b, err := readFile(s.fs, name)
		if err != nil {
			bad = append(bad, fmt.Errorf("read snapshot %s: %w", name, err))
			continue
		}
		snap, err := parseSnapshot(b)
		if err != nil {
			bad = append(bad, fmt.Errorf("read snapshot %s: %w", name, err))
			continue
		}
		snap.number = n
		good = append(good, snap)
	}
	return good, bad, nil
}

func snapshotNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, snapshotSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// save writes a snapshot; it is durable on return. Of older files one is kept.
// It returns the file's size in bytes.
func (s *store) save(snap *snapshot) (int, error) {
	b, err := snap.encode()
	if err != nil {
		return 0, err
	}
	n := s.number + 1
	name := filepath.Join(s.dir, fmt.Sprintf("%020d%s", n, snapshotSuffix))
	if err := writeFile(s.fs, name+".tmp", b); err != nil {
		return 0, fmt.Errorf("write snapshot %s: %w", name, err)
	}
	if err := s.fs.Rename(name+".tmp", name); err != nil {
		return 0, fmt.Errorf("write snapshot %s: %w", name, err)
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return 0, fmt.Errorf("write snapshot %s: %w", name, err)
	}
	s.number = n
	return len(b), s.prune()
}

// prune removes all but the newest generations, and what a crash left of
// writing.
func (s *store) prune() error {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		n, ok := snapshotNumber(strings.TrimSuffix(e.Name, ".tmp"))
		if !ok || (n+generations > s.number && !strings.HasSuffix(e.Name, ".tmp")) {
			continue
		}
		if err := s.fs.Remove(filepath.Join(s.dir, e.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func writeFile(fsys vfs.FS, name string, b []byte) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err == nil && size > maxSnapshot {
		err = fmt.Errorf("%w: %d bytes are no snapshot", errState, size)
	}
	var b []byte
	if err == nil {
		b = make([]byte, size)
		if _, err = f.ReadAt(b, 0); err == io.EOF {
			err = nil
		}
	}
	return b, errors.Join(err, f.Close())
}
