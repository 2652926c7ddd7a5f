package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"edgehub/pkg/log/vfs"
)

const (
	metaFile = "meta.db"
	lockFile = "lock"
)

// boltMeta is the metadata of a log on the machine's own file system: meta.db
// in bbolt, a bucket per first element of the key, and a lock on the
// directory.
type boltMeta struct {
	db    *bolt.DB
	lock  *dirLock
	aside string
}

// openBoltMeta locks o.Dir and opens meta.db in it. A meta.db that bbolt
// cannot believe is renamed, never removed, and a new one made.
func openBoltMeta(o *Options) (metaStore, error) {
	if err := vfs.MakeDirs(vfs.OS(), o.Dir); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockDir(filepath.Join(o.Dir, lockFile))
	if err != nil {
		return nil, err
	}
	m := &boltMeta{lock: lock}
	path := filepath.Join(o.Dir, metaFile)
	_, statErr := os.Stat(path)
	m.db, err = openBolt(path, false)
	if err != nil && !isRefusal(err) && statErr == nil {
		m.aside = fmt.Sprintf("%s.bad-%s", path, o.Clock().UTC().Format("20060102T150405.000"))
		o.Logger.Error("metadata is damaged and set aside; topics are rebuilt from journal and segments",
			"file", path, "kept", m.aside, "err", err)
		if err = os.Rename(path, m.aside); err == nil {
			m.db, err = openBolt(path, false)
		}
	}
	if err == nil {
		err = vfs.OS().SyncDir(o.Dir)
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return m, nil
}

// isRefusal says that the system refuses, which says nothing about the file.
func isRefusal(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, bolterrors.ErrTimeout) || errors.As(err, &errno)
}

// openBolt opens and checks a database. bbolt maps the file and panics, or
// faults, on pages that make no sense; both become errors here.
func openBolt(path string, readOnly bool) (db *bolt.DB, err error) {
	if err := checkBolt(path); err != nil {
		return nil, err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("damaged: %v", r)
		}
	}()
	db, err = bolt.Open(path, 0o640, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	if _, err := boltAll(db); err != nil { // every page that counts
		db.Close()
		return nil, err
	}
	return db, nil
}

// checkBolt looks, before bbolt maps the file, whether one of its two meta
// pages is sound and the file as long as that says. A file that is missing or
// empty is fine: bbolt makes it.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		return nil
	}
	const header, length = 16, 64 // of a page, of bbolt's meta
	sound := false
	for _, at := range []int64{0, 4 << 10, 16 << 10, 64 << 10} { // by page size
		var b [header + length]byte
		if readFull(f, b[:], at) != nil {
			continue
		}
		m := b[header:]
		sum := fnv.New64a()
		sum.Write(m[:56])
		if binary.NativeEndian.Uint32(m) != 0xed0cdaed || sum.Sum64() != binary.NativeEndian.Uint64(m[56:]) {
			continue
		}
		sound = true
		pageSize, pages := int64(binary.NativeEndian.Uint32(m[8:])), int64(binary.NativeEndian.Uint64(m[40:]))
		if pages < 0 || pages > 1<<31 || pageSize*pages > st.Size() {
			return fmt.Errorf("damaged: %d bytes, %d pages of %d belong to it", st.Size(), pages, pageSize)
		}
	}
	if !sound {
		return errors.New("damaged: neither meta page is sound")
	}
	return nil
}

func (m *boltMeta) setAside() string { return m.aside }

func (m *boltMeta) all() (map[string][]byte, error) { return boltAll(m.db) }

func boltAll(db *bolt.DB) (kv map[string][]byte, err error) {
	kv = map[string][]byte{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				kv[string(name)+"/"+string(k)] = append([]byte{}, v...)
				return nil
			})
		})
	})
	return kv, err
}

func (m *boltMeta) write(kv map[string][]byte) error {
	return m.db.Update(func(tx *bolt.Tx) error {
		for k, v := range kv {
			bucket, key, ok := strings.Cut(k, "/")
			if !ok {
				return fmt.Errorf("meta.db: key %q has no bucket", k)
			}
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			if err != nil {
				return err
			}
			if v == nil {
				err = b.Delete([]byte(key))
			} else {
				err = b.Put([]byte(key), v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *boltMeta) close() error {
	var err error
	if m.db != nil {
		err = m.db.Close()
	}
	return errors.Join(err, m.lock.release())
}
