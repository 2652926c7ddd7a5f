// Package samples holds real sensor series, for the demo and for tests. Each
// folder has the source and the licence of its series: nab (MIT), weather
// (CC0), motes (ODC-BY, CC BY 4.0).
//
// Series are decompressed on each call; their order is that of the source,
// with its oddities. The files are part of the program, so a file that does
// not read is a broken build: these functions panic.
package samples

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

//go:embed nab/machine_temperature.csv.gz
var machineCSV []byte

//go:embed weather/weather.csv.gz
var weatherCSV []byte

//go:embed motes/motes.csv.gz
var motesCSV []byte

// Sample is one value of one sensor.
type Sample struct {
	Time  int64   // ms since 1970
	Value float64 // °F
}

// Machine is the temperature of a machine, every 5 minutes: 22,695 rows from
// 2013-12-02 to 2014-02-19. One hour goes backwards.
func Machine() []Sample {
	var out []Sample
	rows(machineCSV, 2, func(f []string) {
		out = append(out, Sample{Time: at("2006-01-02 15:04:05", f[0]), Value: number(f[1])})
	})
	return out
}

// Observation is the weather at a station at the full hour. NaN: missing.
type Observation struct {
	Station     string // EWR, JFK, LGA
	Time        int64  // ms since 1970
	Temperature float64
	Humidity    float64 // %
	WindSpeed   float64 // mph
}

// Weather is a year of hours at three airports: 26,115 rows of 2013, sorted by
// station and then by time.
func Weather() []Observation {
	var out []Observation
	rows(weatherCSV, 5, func(f []string) {
		out = append(out, Observation{
			Station: strings.Clone(f[0]), Time: at(time.RFC3339, f[1]),
			Temperature: number(f[2]), Humidity: number(f[3]), WindSpeed: number(f[4]),
		})
	})
	return out
}

// Reading is what a mote measured.
type Reading struct {
	Mote        int   // 1 to 4
	Indoor      bool  //
	Time        int64 // ms since 1970, made from the row number
	Humidity    float64
	Temperature float64 // °C
	Event       bool    // hot water was held near
}

// Motes are four motes, every 5 s: 18,914 rows, sorted by mote and then by
// time.
func Motes() []Reading {
	start := time.Date(2010, 5, 9, 0, 0, 0, 0, time.UTC).UnixMilli()
	var out []Reading
	rows(motesCSV, 6, func(f []string) {
		out = append(out, Reading{
			Mote: int(number(f[1])), Indoor: f[2] == "1", Time: start + 5000*int64(number(f[0])),
			Humidity: number(f[3]), Temperature: number(f[4]), Event: f[5] == "1",
		})
	})
	return out
}

// rows calls f with each row behind the heading; f must not keep it.
func rows(packed []byte, columns int, f func([]string)) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		panic(fmt.Sprintf("samples: %v", err))
	}
	r := csv.NewReader(z)
	r.ReuseRecord, r.FieldsPerRecord = true, columns
	all := 0
	for {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(fmt.Sprintf("samples: %v", err))
		}
		if all++; all > 1 {
			f(row)
		}
	}
	if err := z.Close(); err != nil {
		panic(fmt.Sprintf("samples: %v", err))
	}
}

func number(s string) float64 {
	if s == "NA" {
		return math.NaN()
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(fmt.Sprintf("samples: %v", err))
	}
	return v
}

func at(layout, s string) int64 {
	t, err := time.Parse(layout, s)
	if err != nil {
		panic(fmt.Sprintf("samples: %v", err))
	}
	return t.UnixMilli()
}
