package vfs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// OS is the machine's file system.
func OS() FS { return osFS{} }

type osFS struct{}

const (
	fileMode = 0o640
	dirMode  = 0o750
)

func (osFS) Create(name string) (File, error) {
	return asFile(openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL))
}

func (osFS) Open(name string) (File, error) {
	f, err := openOS(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if st, err := f.f.Stat(); err != nil || st.IsDir() {
		f.f.Close()
		if err == nil {
			err = &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
		}
		return nil, err
	}
	return f, nil
}

func (osFS) OpenRW(name string) (File, error) { return asFile(openOS(name, os.O_RDWR)) }

// asFile keeps a nil *osFile from becoming a File that is not nil.
func asFile(f *osFile, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func openOS(name string, flag int) (*osFile, error) {
	f, err := os.OpenFile(name, flag, fileMode)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &osFile{f: f, conn: conn}, nil
}

func (osFS) Remove(name string) error     { return os.Remove(name) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, dirMode) }

func (osFS) ReadDir(dir string) ([]DirEntry, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]DirEntry, 0, len(list))
	for _, e := range list {
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the listing
		}
		if err != nil {
			return nil, err
		}
		out = append(out, dirEntry(st))
	}
	return out, nil
}

func (osFS) Stat(name string) (DirEntry, error) {
	st, err := os.Stat(name)
	if err != nil {
		return DirEntry{}, err
	}
	return dirEntry(st), nil
}

func dirEntry(st fs.FileInfo) DirEntry {
	e := DirEntry{Name: st.Name(), Dir: st.IsDir()}
	if !e.Dir {
		e.Size = st.Size()
	}
	return e
}

type osFile struct {
	f    *os.File
	conn syscall.RawConn
}

func (f *osFile) ReadAt(b []byte, off int64) (int, error)  { return f.f.ReadAt(b, off) }
func (f *osFile) WriteAt(b []byte, off int64) (int, error) { return f.f.WriteAt(b, off) }
func (f *osFile) Truncate(size int64) error                { return f.f.Truncate(size) }
func (f *osFile) Close() error                             { return f.f.Close() }

func (f *osFile) Size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// control runs the system call do on the descriptor, which stays open
// meanwhile even if another goroutine closes the file.
func (f *osFile) control(op string, do func(fd int) error) error {
	var err error
	if cerr := f.conn.Control(func(fd uintptr) { err = do(int(fd)) }); cerr != nil {
		err = os.ErrClosed // the only way that Control fails
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.f.Name(), Err: err}
	}
	return nil
}
