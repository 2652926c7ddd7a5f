package log

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// recoverLog builds a log from what its directory holds. Its goroutines do not
// run yet.
func recoverLog(o Options, meta metaStore) (_ *Log, err error) {
	for _, d := range []string{o.Dir, filepath.Join(o.Dir, journalDir), filepath.Join(o.Dir, topicsDir)} {
		if err := vfs.MakeDirs(o.FS, d); err != nil {
			return nil, err
		}
	}
	ms, err := loadMeta(meta)
	if err != nil {
		return nil, err
	}
	fd, err := inspect(o.FS, o.Dir, ms, true)
	if err != nil {
		return nil, err
	}
	l := newLog(o, meta)
	defer func() {
		if err != nil {
			l.cache.closeAll()
			fd.close()
			if l.j != nil {
				l.j.close()
			}
		}
	}()
	l.space.init(l)
	l.id, l.epoch = fd.js.id, fd.epoch+1
	secret := fd.js.secret
	if !fd.js.hasID {
		// No journal to read: a new log, or one that has only segments left.
		if ms.hasID {
			l.id = ms.id
		} else {
			l.id = random16()
		}
		secret = random16()
	}
	l.time.Store(max(fd.now, 0))
	l.now()
	l.report.Created = !ms.hasID && fd.js.last == nil && len(fd.parts) == 0
	l.report.MetaRebuilt = !l.report.Created && !fd.whole
	l.report.MetaSetAside = meta.setAside()
	l.report.Clean = fd.st.clean && fd.js.torn == 0
	l.report.Torn, l.report.TornSequence, l.report.TornFile = fd.js.torn != 0, fd.js.torn, fd.js.tornAt
	l.report.EntriesRead = len(fd.js.entries)
	if l.report.MetaRebuilt {
		l.log.Error("metadata was lost; topics come from journal and segments", "dir", o.Dir, "topics", fd.adopted, "damaged_keys", ms.bad)
	}
	if l.report.Torn {
		l.log.Warn("the last journal entry was incomplete and is cut; nothing of it was acknowledged",
			"file", fd.js.tornAt, "sequence", fd.js.torn)
	}
	if err := l.openJournal(fd, secret); err != nil {
		return nil, err
	}
	if err := l.recoverTopics(fd); err != nil {
		return nil, err
	}
	if err := l.replay(fd); err != nil {
		return nil, err
	}
	l.settleOffsets(fd)
	if err := l.repairTable(fd); err != nil {
		return nil, err
	}
	if err := l.writeRecovered(fd, secret); err != nil {
		return nil, err
	}
	if err := l.loadInternal(); err != nil {
		return nil, err
	}
	if err := l.beginEpoch(); err != nil {
		return nil, err
	}
	l.report.Quarantined = l.Damages()
	return l, nil
}

// openJournal takes over the slots and finds where the next entry goes.
func (l *Log) openJournal(fd *found, secret [16]byte) error {
	o := &l.opt
	_, total, err := l.fs.Space(o.Dir)
	if err != nil {
		total = 0
	}
	flash := false
	if o.CommitInterval == CommitAuto || o.FS == vfs.OS() {
		flash = onFlashCard(o.Dir)
	}
	if o.CommitInterval == CommitAuto {
		l.interval = 0
		if flash {
			l.interval = flashCommitInterval
		}
	}
	js := fd.js
	j := &journal{
		fs: l.fs, dir: l.path(journalDir), id: l.id, secret: secret, shift: minBlockShift,
		cur: -1, grown: make(chan struct{}), durableTail: js.tail,
	}
	if flash {
		j.shift = maxBlockShift
	}
	j.slotBytes, j.want = o.geometry(total)
	if js.last != nil || js.newest != nil {
		// What is there keeps its slots.
		for _, s := range js.slots {
			if s.table != nil {
				j.slotBytes = s.table.slotBytes
			}
		}
		if j.slotBytes < minSlots*minBlock {
			return fmt.Errorf("journal: slots of %d bytes", j.slotBytes)
		}
		if js.last != nil && js.newest == nil {
			j.slotBytes = js.slots[0].size
		}
	}
	j.want = max(j.want, len(js.slots))
	l.j = j
	// The rest of the files is made complete behind the start; those before the
	// last entry's slot are complete, for the ring has passed them.
	first := 2
	if js.last != nil {
		first = max(first, js.last.slot+1)
	}
	for i, s := range js.slots {
		if s.file != nil {
			s.file.Close()
			s.file = nil
		}
		if s.size >= j.slotBytes {
			first = max(first, i+1)
		}
	}
	if o.preallocAll {
		first = j.want
	}
	if err := j.makeFirst(first); err != nil {
		return err
	}
	for i := range js.entries {
		e := &js.entries[i]
		s := j.slots[e.slot]
		if s.first == 0 {
			s.first = e.seq
		}
		s.last = max(s.last, e.seq)
	}
	j.pos = j.slotBytes
	if js.last != nil {
		j.cur, j.pos, j.seq = js.last.slot, js.last.pos+js.last.size(), js.last.seq
	}
	l.pendLimit = min(o.PendingBytes, j.slotBytes/2)
	l.flush.tail.Store(max(js.tail, 1))
	l.flush.committed.Store(j.seq)
	// The scan reads entries again when it replays them. Files behind those
	// made so far are slots whose zero-fill was interrupted: they hold none.
	for i, s := range js.slots[:min(len(js.slots), len(j.slots))] {
		s.file = j.slots[i].file
	}
	return nil
}

// recoverTopics makes topics and partitions of what was found and reads their
// segments.
func (l *Log) recoverTopics(fd *found) error {
	ids := slices.SortedFunc(maps.Keys(fd.topics), func(a, b record.TopicID) int {
		return strings.Compare(fd.topics[a].Name, fd.topics[b].Name)
	})
	for _, id := range ids {
		m := fd.topics[id]
		m.Config.EnsureDefaults()
		t := l.newTopic(m, id)
		l.addTopic(t)
		for _, p := range t.parts {
			if err := l.recoverSegments(fd, p, m); err != nil {
				return err
			}
		}
	}
	for _, fp := range fd.parts {
		n := 0
		for _, s := range fp.segs {
			if s.headOK && fd.st.deleted[s.head.topic] {
				// The deletion was durable, its end was not reached (J7).
				if err := l.fs.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				n++
			}
		}
		if n == 0 {
			continue
		}
		if err := l.fs.SyncDir(fp.dir); err != nil {
			return err
		}
		if _, known := l.topics[fp.topic]; !known {
			// Only if nothing else is in them.
			if l.fs.Remove(fp.dir) == nil && l.fs.Remove(filepath.Dir(fp.dir)) == nil {
				if err := l.fs.SyncDir(l.path(topicsDir)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// recoverSegments reads the segments of a partition. Sealed ones that the
// journal does not reach are believed by their footers; the others are synced,
// their pages dropped, and every batch is read.
func (l *Log) recoverSegments(fd *found, p *Partition, m topicMeta) error {
	key := tpKey{p.topic.id, p.index}
	fp, list := fd.segments(m, p.topic.id, p.index)
	low, journaled := fd.st.lowest(key)
	p.start = fd.st.starts[key]
	synced := false
	var kept []*foundSegment
	for i, s := range list {
		last := i == len(list)-1
		if s.foot != nil && (!journaled || s.foot.next <= low) {
			kept = append(kept, s)
			continue
		}
		if !synced {
			for _, d := range []string{fp.dir, filepath.Dir(fp.dir), l.path(topicsDir)} {
				if err := l.fs.SyncDir(d); err != nil {
					return err
				}
			}
			synced = true
		}
		f, err := l.fs.OpenRW(s.path)
		if err != nil {
			return err
		}
		err = f.Sync()
		if err == nil {
			err = f.DropCache()
		}
		if err == nil {
			s.size, err = f.Size()
		}
		if err == nil {
			err = s.scan(f, func(off int64) bool { return last && fd.st.holds(key, off) }, fd.now)
		}
		f.Close()
		if err != nil {
			return err
		}
		l.report.SegmentsScanned++
		if s.stats.batches == 0 && s.stats.next == s.base {
			if err := l.emptySegment(fp, s); err != nil {
				return err
			}
			continue
		}
		kept = append(kept, s)
	}
	return l.adoptSegments(fd, p, kept)
}

// emptySegment takes a file without one sound batch out of the way: it is
// removed if there is nothing in it at all, else kept under another name.
func (l *Log) emptySegment(fp *foundPartition, s *foundSegment) error {
	l.log.Warn("segment without a sound batch", "file", s.path, "bytes", s.size)
	if !s.rest && !s.cut && s.size <= segBlock {
		if err := l.fs.Remove(s.path); err != nil {
			return err
		}
	} else if err := l.fs.Rename(s.path, s.path+".bad"); err != nil {
		return err
	}
	return l.fs.SyncDir(fp.dir)
}

// adoptSegments puts scanned segments into the partition.
func (l *Log) adoptSegments(fd *found, p *Partition, list []*foundSegment) error {
	key := tpKey{p.topic.id, p.index}
	for i, fs := range list {
		last := i == len(list)-1
		if fs.stats.next <= p.flushed && i > 0 {
			l.stat.quarantined(Damage{Topic: p.topic.name, Partition: p.index, First: 0, Last: -1, File: fs.path, Reason: "segment repeats an earlier one and is left out"})
			continue
		}
		if i == 0 {
			if _, known := fd.st.starts[key]; !known {
				p.start = max(p.start, fs.base)
			}
			if fs.base > p.start {
				l.lostRange(p, p.start, fs.base-1, fs.path, "segment before this one is missing")
			}
		} else if fs.base > p.flushed {
			l.lostRange(p, p.flushed, fs.base-1, fs.path, "segment before this one is missing")
		}
		for _, d := range fs.damages {
			if d.Lost() == 0 {
				d.Topic, d.Partition, d.File = p.topic.name, p.index, fs.path
				l.stat.quarantined(d)
			}
		}
		for _, h := range fs.stats.holes {
			l.lostRange(p, h.first, h.last, fs.path, "batch fails its check")
		}
		if errors.Is(fs.footErr, errBadFooter) && !last {
			l.stat.quarantined(Damage{Topic: p.topic.name, Partition: p.index, First: 0, Last: -1, File: fs.path, Reason: "footer is damaged; the segment is scanned instead"})
		}
		s := &segment{
			p: p, path: fs.path, head: fs.head, stats: fs.stats, size: fs.size,
			sealed: true, named: true,
		}
		s.head.base, s.head.id = fs.base, fs.id
		p.segs = append(p.segs, s)
		p.flushed, p.synced = fs.stats.next, fs.stats.next
		p.dirMade = true
		l.recoverProducers(fd, p, fs)
		for _, e := range fs.stats.epochs {
			l.epoch = max(l.epoch, e.epoch+1)
		}
		if fs.foot != nil && !fs.cut {
			continue
		}
		s.index = fs.index
		if s.index == nil {
			s.index = []indexEntry{}
		}
		if !last && errors.Is(fs.footErr, errBadFooter) {
			continue // as it is; it is scanned at every Open
		}
		if err := l.reopenSegment(p, s, fs, last); err != nil {
			return err
		}
	}
	return nil
}

// reopenSegment goes on with the partition's open segment if it ends cleanly on
// a block border; else seals it as it is, and the next record begins another:
// no block that holds acknowledged bytes is written again (J2).
func (l *Log) reopenSegment(p *Partition, s *segment, fs *foundSegment, last bool) error {
	f, err := l.fs.OpenRW(s.path)
	if err != nil {
		return err
	}
	s.w, s.sealed, s.pos = f, false, blockUp(s.size)
	if last && fs.headOK && !fs.cut && !fs.rest && fs.foot == nil && errors.Is(fs.footErr, errNoFooter) &&
		s.size == blockUp(s.stats.end) && len(s.stats.holes) == 0 {
		p.open = s
		return nil
	}
	err = l.flush.w.sealSegment(s)
	if !isFull(err) {
		return err
	}
	l.log.Warn("disk full: a segment is left without a footer for now", "file", s.path, "err", err)
	if last {
		p.open, s.mustSeal = s, true
		return nil
	}
	s.sealed, s.w = true, nil // as it is; the next Open scans it again
	return f.Close()
}

// recoverProducers adds what a segment knows of idempotent producers.
func (l *Log) recoverProducers(fd *found, p *Partition, fs *foundSegment) {
	if p.pids == nil {
		p.pids = producers{}
	}
	if fs.foot != nil {
		for _, pr := range fs.foot.producers {
			for pr.n > 0 && pr.window[pr.n-1].base >= fs.stats.next {
				pr.n-- // behind the cut
			}
			if pr.n > 0 {
				p.pids.put(pr)
				fd.st.maxPID = max(fd.st.maxPID, pr.id)
			}
		}
	}
	for i := range fs.batches {
		h := &fs.batches[i]
		p.pids.add(h, h.BaseOffset, fd.now)
		fd.st.maxPID = max(fd.st.maxPID, h.ProducerID)
	}
}

// lostRange quarantines what of [first, last] is not below the log start.
func (l *Log) lostRange(p *Partition, first, last int64, file, reason string) {
	p.quarantine(hole{max(first, p.start), last}, file, reason)
}

// settleOffsets gives every partition its next offset: the highest that anyone
// knows (J6).
func (l *Log) settleOffsets(fd *found) {
	for _, p := range l.parts {
		key := tpKey{p.topic.id, p.index}
		end := p.headEnd()
		next := max(end, fd.st.nexts[key], p.start)
		if next > end {
			l.lostRange(p, end, next-1, "", "records are in neither journal nor segments")
		}
		p.next, p.hw = next, next
		p.startAsked = p.start
	}
	if n := len(fd.js.missing); n > 0 {
		// The ranges above say what that cost; this says why.
		l.stat.quarantined(Damage{Partition: -1, First: 0, Last: -1, File: l.path(journalDir),
			Reason: fmt.Sprintf("%d journal entries from %d on are damaged", n, fd.js.missing[0])})
	}
}

// repairTable writes the table of the current slot again if it is damaged: the
// first write of the slot was torn and its entry is whole, or it is rot. No
// entry is touched.
func (l *Log) repairTable(fd *found) error {
	js := fd.js
	if js.last == nil || js.slots[js.last.slot].table != nil {
		return nil
	}
	first := js.firstOfSlot()
	t := l.table(js.last.slot)
	t.first = first.seq
	head := t.encode(nil)
	if int64(len(head)) > first.pos {
		return nil // the next slot has one
	}
	f := l.j.slots[js.last.slot].file
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	return f.Sync()
}

// writeRecovered makes the metadata what has been found, with the new epoch.
func (l *Log) writeRecovered(fd *found, secret [16]byte) error {
	l.epochID = random16()
	ms := fd.meta
	l.nextProducer = ms.nextProducer
	if fd.st.maxPID >= l.nextProducer || !ms.hasProducer && l.report.MetaRebuilt {
		l.nextProducer = fd.st.maxPID + 1 + 1000*producerBlock
	}
	l.endProducer = l.nextProducer
	kv := map[string][]byte{
		keyID:             l.id[:],
		keySecret:         secret[:],
		keyEpoch:          u32bytes(uint32(l.epoch)),
		epochKey(l.epoch): l.epochID[:],
		keyTime:           u64bytes(uint64(l.now())),
		keyProducer:       u64bytes(uint64(l.endProducer)),
	}
	for _, k := range ms.bad {
		if _, ok := kv[k]; !ok {
			kv[k] = nil
		}
	}
	for n := range ms.epochIDs {
		if n < l.epoch-keptEpochs {
			kv[epochKey(n)] = nil
		}
	}
	for name, m := range ms.topics {
		if t := l.topics[name]; t == nil || t.id.String() != m.ID {
			kv[prefixTopic+name] = nil
		}
	}
	for _, name := range []string{record.EpochsTopic, OffsetsTopic, LedgerTopic} {
		if l.topics[name] == nil {
			cfg := record.TopicConfig{RetentionTime: -1, RetentionBytes: -1, Compression: l.opt.Compression, Compact: name == OffsetsTopic}
			if name == record.EpochsTopic {
				cfg.RetentionBytes = epochsBytes
			}
			if name == LedgerTopic {
				cfg.RetentionBytes = ledgerBytes
			}
			cfg.MaxMessageBytes = int32(min(record.DefaultMaxMessageBytes, l.maxItem()))
			if err := l.checkConfig(&cfg); err != nil {
				return err
			}
			l.addTopic(l.newTopic(topicMeta{Name: name, Config: cfg}, random16()))
		}
	}
	for name, t := range l.topics {
		m := t.meta()
		if old, ok := ms.topics[name]; !ok || old != m {
			kv[prefixTopic+name] = m.encode()
			l.newTopics = append(l.newTopics, m)
		}
	}
	err := writeMeta(l.meta, kv)
	if isFull(err) && fd.whole && len(l.newTopics) == 0 {
		// The journal has the epoch, too, and the rest is as it was.
		l.log.Warn("disk full: metadata stays as it is for now", "err", err)
		return nil
	}
	return err
}

const (
	// keptEpochs are remembered in meta.db; EpochsTopic has them all.
	keptEpochs = 100
	// epochsBytes bounds EpochsTopic.
	epochsBytes = 64 << 20
)
