package log

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// found is what a log's directory holds, before anything is changed.
type found struct {
	meta   *metaState
	whole  bool // metadata is complete: topics not in it are gone
	js     *journalScan
	st     *journalState
	parts  []*foundPartition
	topics map[record.TopicID]topicMeta
	now    int64 // hybrid time that is not before anything in the log
	epoch  int32 // highest seen

	adopted []string // topics that metadata did not know
}

// close closes the slots, which a log that opens takes over.
func (fd *found) close() { fd.js.close() }

// inspect reads metadata, journal, and the ends of all segments. With live set
// the journal is synced first.
func inspect(fsys vfs.FS, dir string, meta *metaState, live bool) (*found, error) {
	fd := &found{meta: meta, topics: map[record.TopicID]topicMeta{}}
	fd.whole = meta.hasID && meta.hasSecret && len(meta.bad) == 0
	var err error
	if fd.js, err = scanJournal(fsys, filepath.Join(dir, journalDir), meta, live); err != nil {
		return nil, err
	}
	if fd.st, err = fd.js.fold(); err == nil {
		fd.parts, err = listSegments(fsys, filepath.Join(dir, topicsDir))
	}
	if err != nil {
		fd.close()
		return nil, err
	}
	fd.now = max(meta.time, fd.st.time)
	fd.epoch = max(meta.epoch, fd.st.epoch)
	fd.findTopics()
	return fd, nil
}

// findTopics decides which topics there are: those of metadata, but for the
// deleted ones; where metadata is not whole, those of the newest slot table and
// the entries behind it too; and those that segments name and nothing has
// deleted.
func (fd *found) findTopics() {
	names := map[string]record.TopicID{}
	add := func(m topicMeta) {
		id, err := record.ParseTopicID(m.ID)
		if err != nil || fd.st.deleted[id] {
			return
		}
		if other, ok := names[m.Name]; ok && other != id {
			return
		}
		names[m.Name] = id
		fd.topics[id] = m
	}
	for _, m := range fd.meta.topics {
		add(m)
	}
	if !fd.whole {
		for _, id := range slices.SortedFunc(maps.Keys(fd.st.topics), func(a, b record.TopicID) int { return strings.Compare(a.String(), b.String()) }) {
			if _, ok := fd.topics[id]; !ok {
				add(fd.st.topics[id])
				fd.adopted = append(fd.adopted, fd.st.topics[id].Name)
			}
		}
	}
	for _, fp := range fd.parts {
		for _, s := range fp.segs {
			if s.headOK {
				fd.epoch, fd.now = max(fd.epoch, s.head.epoch), max(fd.now, s.head.created)
			}
			for _, e := range s.stats.epochs {
				fd.epoch = max(fd.epoch, e.epoch)
			}
			fd.now = max(fd.now, s.stats.lastIngest)
			if !s.headOK || s.head.name != fp.topic || fd.st.deleted[s.head.topic] {
				continue
			}
			m, ok := fd.topics[s.head.topic]
			if !ok {
				cfg := record.DefaultTopicConfig()
				if strings.HasPrefix(fp.topic, record.InternalPrefix) {
					cfg.RetentionTime, cfg.RetentionBytes = -1, -1
				}
				m = topicMeta{Name: fp.topic, ID: s.head.topic.String(), Config: cfg}
				fd.adopted = append(fd.adopted, fp.topic)
			}
			if ok && m.Config.Partitions > fp.partition {
				continue
			}
			m.Config.Partitions = max(m.Config.Partitions, fp.partition+1)
			if other, taken := names[m.Name]; taken && other != s.head.topic {
				continue // a name of another life; its files stay where they are
			}
			names[m.Name] = s.head.topic
			fd.topics[s.head.topic] = m
		}
	}
	slices.Sort(fd.adopted)
	fd.adopted = slices.Compact(fd.adopted)
}

// segments are the files of a partition. Those whose header is damaged count by
// their place.
func (fd *found) segments(t topicMeta, id record.TopicID, partition int32) (*foundPartition, []*foundSegment) {
	for _, fp := range fd.parts {
		if fp.topic != t.Name || fp.partition != partition {
			continue
		}
		var out []*foundSegment
		for _, s := range fp.segs {
			if !s.headOK || s.head.topic == id {
				out = append(out, s)
			}
		}
		return fp, out
	}
	return nil, nil
}
