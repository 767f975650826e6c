package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for _, tt := range []struct {
		in           number
		text, asJSON string
	}{
		{none, "-", "null"},
		{0, "0", "0"},
		{1, "1", "1"},
		{0.01234, "0.0123", "0.01234"},
		{1.2345, "1.23", "1.2345"},
		{293.44, "293.4", "293.44"},
		{12345.6, "12346", "12345.6"},
		{number(math.Inf(1)), "+Inf", "null"},
	} {
		if got := tt.in.String(); got != tt.text {
			t.Errorf("%v in the table: got %q, want %q", float64(tt.in), got, tt.text)
		}
		if got, err := json.Marshal(tt.in); err != nil || string(got) != tt.asJSON {
			t.Errorf("%v in JSON: got %s and %v, want %s", float64(tt.in), got, err, tt.asJSON)
		}
	}
}

func TestJudge(t *testing.T) {
	atMost, exactly, atLeast := &target{"ratio", "<=", 1.2}, &target{"value", "=", 1}, &target{"ratio", ">=", 0.5}
	for _, tt := range []struct {
		row    row
		target *target
		ok     bool
	}{
		{row{Value: 9, Ratio: 1.2}, atMost, true},
		{row{Value: 1, Ratio: 1.21}, atMost, false},
		{row{Value: 1, Ratio: none}, atMost, false},
		{row{Value: 1, Ratio: 7}, exactly, true},
		{row{Value: 2, Ratio: 1}, exactly, false},
		{row{Value: 0, Ratio: 1}, exactly, false},
		{row{Value: none}, exactly, false},
		{row{Value: 1, Ratio: 0.5}, atLeast, true},
		{row{Value: 1, Ratio: 0.49}, atLeast, false},
		{row{Value: 1, Ratio: none}, atLeast, false},
	} {
		got := tt.row.judge(tt.target, "too slow")
		if got.OK != tt.ok {
			t.Errorf("value %v, ratio %v, target %v: got ok %v, want %v", tt.row.Value, tt.row.Ratio, tt.target, got.OK, tt.ok)
		}
		if missed := strings.HasPrefix(got.Note, "missed: too slow"); missed == tt.ok {
			t.Errorf("value %v, ratio %v, target %v: note %q", tt.row.Value, tt.row.Ratio, tt.target, got.Note)
		}
	}
}

// samples are a row with everything, one that is reported only, and a miss.
func samples() []row {
	return []row{
		compare("G/one", "ns", []float64{110}, []float64{100}).judge(&target{"ratio", "<=", 1.2}, "slow"),
		row{Name: "G/two", Value: 3, Unit: "allocs", Floor: none, Ratio: none}.report(),
		row{Name: "G/three", Value: 12, Unit: "ms", Floor: 1, Ratio: 12, Note: "disk of 2 ms"}.judge(&target{"value", "<=", 10}, "slow"),
	}
}

func TestWriteJSON(t *testing.T) {
	var b bytes.Buffer
	if err := writeJSON(&b, samples()); err != nil {
		t.Fatal(err)
	}
	want := `{"name":"G/one","value":110,"unit":"ns","floor":100,"ratio":1.1,"target":"ratio <= 1.2","ok":true}
{"name":"G/two","value":3,"unit":"allocs","floor":null,"ratio":null,"target":null,"ok":true}
{"name":"G/three","value":12,"unit":"ms","floor":1,"ratio":12,"target":"value <= 10","ok":false,"note":"missed: slow; disk of 2 ms"}
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestWriteTable(t *testing.T) {
	var b bytes.Buffer
	if err := writeTable(&b, samples()); err != nil {
		t.Fatal(err)
	}
	want := `name     value  unit    floor  ratio  target        ok
G/one    110    ns      100    1.10   ratio <= 1.2  ok
G/two    3      allocs  -      -      -             reported
G/three  12     ms      1      12     value <= 10   missed: slow; disk of 2 ms
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestReadmeExplainsEveryRow(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if i := slices.IndexFunc(c.rows, func(name string) bool { return !bytes.Contains(readme, []byte("`"+name+"`")) }); i >= 0 {
			t.Errorf("README.md does not explain %s", c.rows[i])
		}
	}
}
