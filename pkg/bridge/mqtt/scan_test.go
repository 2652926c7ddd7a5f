package mqtt

import (
	"bytes"
	"fmt"
	"testing"

	"edgehub/pkg/log"
)

// walk runs a scanner over b, cut behind every cut(i)-th byte, and writes
// down what it finds.
func walk(b []byte, cut func(i int) bool) (found []string, err error) {
	var s scanner
	for len(b) > 0 || s.complete() {
		n := 0
		for n < len(b) && (n == 0 || !cut(n)) {
			n++
		}
		part := b[:n]
		for len(part) > 0 || s.complete() {
			k, what, err := s.next(part)
			if err != nil {
				return found, err
			}
			if k == 0 && what == more {
				return found, fmt.Errorf("no progress in state %d", s.state)
			}
			part = part[k:]
			switch what {
			case header:
				found = append(found, fmt.Sprintf("header %d of %d", s.kind(), s.size()))
			case end:
				found = append(found, fmt.Sprintf("end id %d", s.packetID))
			}
		}
		b = b[n:]
	}
	return found, nil
}

func TestScannerFindsPacketIDs(t *testing.T) {
	var stream []byte
	stream = append(stream, connectPacket("c", 4, true)...)
	stream = append(stream, publishPacket(4, "a/b", 1, false, 258, []byte("x"))...)
	stream = append(stream, 0xc0, 0) // PINGREQ
	stream = append(stream, publishPacket(4, "a/b", 0, false, 0, nil)...)
	stream = append(stream, publishPacket(5, string(bytes.Repeat([]byte("t"), 300)), 2, true, 65535, bytes.Repeat([]byte("p"), 5000))...)
	stream = append(stream, publishPacket(4, "", 1, false, 7, nil)...)
	want := []string{
		"header 1 of 15", "end id 0", "header 3 of 10", "end id 258", "header 12 of 2", "end id 0",
		"header 3 of 7", "end id 0", "header 3 of 5308", "end id 65535", "header 3 of 6", "end id 7",
	}
	for _, every := range []int{1, 2, 3, 7, 1000, len(stream)} {
		got, err := walk(stream, func(i int) bool { return i >= every })
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("cut every %d bytes: %v, %v\nwant %v", every, got, err, want)
		}
	}
}

func TestScannerRefusesEndlessLength(t *testing.T) {
	if _, err := walk([]byte{0x30, 0x80, 0x80, 0x80, 0x80}, func(int) bool { return true }); err != errLength {
		t.Errorf("got %v, want %v", err, errLength)
	}
}

// FuzzScanner: what it finds does not depend on how the stream is cut (S2),
// every call makes progress (S1), and split agrees with it.
func FuzzScanner(f *testing.F) {
	f.Add(publishPacket(4, "a", 1, true, 5, []byte("xyz")), uint8(1))
	f.Add([]byte{0x40, 2, 0, 1, 0x50, 2, 0, 1, 0x40, 3, 0, 1, 0x87}, uint8(3))
	f.Add([]byte{0x32, 0x80, 0x80, 0x80, 0x80, 1}, uint8(2))
	f.Add([]byte{0x32, 3, 0xff, 0xff, 1, 0x32, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, every uint8) {
		whole, err1 := walk(b, func(int) bool { return false })
		cut, err2 := walk(b, func(i int) bool { return i > int(every) })
		if fmt.Sprint(whole, err1) != fmt.Sprint(cut, err2) {
			t.Fatalf("whole: %v, %v\ncut:   %v, %v", whole, err1, cut, err2)
		}
		ends := 0
		for _, s := range whole {
			if s[0] == 'e' {
				ends++
			}
		}
		packets, rest := 0, b
		for {
			p, next, err := split(rest)
			if err != nil {
				break
			}
			if len(p)+len(next) != len(rest) {
				t.Fatal("split loses bytes")
			}
			if p[0]>>4 == typePuback {
				ackOf(p)
			}
			packets++
			rest = next
		}
		if packets != ends {
			t.Fatalf("split finds %d packets, the scanner %d", packets, ends)
		}
	})
}

// FuzzHeldAcks holds the queue to a list.
func FuzzHeldAcks(f *testing.F) {
	f.Add([]byte{1, 0, 0x81, 3, 0x83, 0, 0x85})
	f.Fuzz(func(t *testing.T, ops []byte) {
		type item struct {
			ack []byte
			lsn log.LSN
		}
		var h heldAcks
		var list []item
		var highest log.LSN
		for i, op := range ops {
			if op < 0x80 { // an ack that waits for commit op, 0 for none
				ack := bytes.Repeat([]byte{byte(i)}, 1+i%5)
				h.add(ack, log.LSN(op))
				highest = max(highest, log.LSN(op))
				if len(list) == 0 {
					highest = log.LSN(op)
				}
				list = append(list, item{ack, highest})
				continue
			}
			durable := log.LSN(op & 0x7f)
			var want []byte
			n := 0
			for n < len(list) && list[n].lsn <= durable {
				want = append(want, list[n].ack...)
				n++
			}
			list = list[n:]
			got, acks := h.take(durable, nil)
			if acks != n || !bytes.Equal(got, want) || h.count != len(list) {
				t.Fatalf("took %d acks % x, want %d % x", acks, got, n, want)
			}
			if next, ok := h.next(); ok != (len(list) > 0) || ok && next != list[0].lsn {
				t.Fatalf("next is %d, %v", next, ok)
			}
		}
	})
}
