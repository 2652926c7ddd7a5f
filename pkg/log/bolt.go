package log

import (
	"errors"
	"fmt"
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
	err = db.View(func(tx *bolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("damaged: %w", err)
			}
		}
		return first
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
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
