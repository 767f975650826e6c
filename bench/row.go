package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
)

// A number is a measured value, or [none].
type number float64

// none stands where there is nothing to say: "-" in the table, null in JSON.
var none = number(math.NaN())

// String returns n with three or more significant digits.
func (n number) String() string {
	switch v := float64(n); {
	case math.IsNaN(v):
		return "-"
	case v == math.Trunc(v) || math.Abs(v) >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case math.Abs(v) >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}

// MarshalJSON implements [json.Marshaler].
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(n), 'g', 6, 64), nil
}

// A row is one line of the result.
type row struct {
	Name  string `json:"name"`
	Value number `json:"value"`
	Unit  string `json:"unit"`  // of value and floor
	Floor number `json:"floor"` // what stands beside it, see README.md
	Ratio number `json:"ratio"` // of value to floor: the median over rounds, not the quotient of the medians

	Target *target `json:"target"` // nil: reported only
	OK     bool    `json:"ok"`     // false: missed, or not measured
	Note   string  `json:"note,omitempty"`
}

// A target is what a row is held against.
type target struct {
	of    string // "value" or "ratio"
	op    string // "<=", ">=" or "="
	limit float64
}

// String returns the target as "ratio <= 1.2".
func (t *target) String() string {
	if t == nil {
		return "-"
	}
	return t.of + " " + t.op + " " + strconv.FormatFloat(t.limit, 'g', -1, 64)
}

// MarshalText implements [encoding.TextMarshaler].
func (t *target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// met reports whether r reaches its target. A row without one does; a row
// without a measurement does not.
func (r *row) met() bool {
	if r.Target == nil {
		return !math.IsNaN(float64(r.Value))
	}
	v := float64(r.Value)
	if r.Target.of == "ratio" {
		v = float64(r.Ratio)
	}
	switch r.Target.op {
	case "=":
		return v == r.Target.limit
	case ">=":
		return v >= r.Target.limit // false for NaN
	}
	return v <= r.Target.limit // so is this
}

// judge sets OK, and explains a miss by why.
func (r row) judge(t *target, why string) row {
	r.Target = t
	if r.OK = r.met(); !r.OK {
		r.Note = join("missed: "+why, r.Note)
	}
	return r
}

// report marks a row that has no target.
func (r row) report() row {
	r.OK = r.met()
	return r
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + "; " + b
}

// verdict is what the table's last column says.
func (r *row) verdict() string {
	switch {
	case r.OK && r.Target != nil:
		return join("ok", r.Note)
	case r.Note != "":
		return r.Note
	}
	return "reported"
}

func writeJSON(w io.Writer, rows []row) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, r := range rows {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func writeTable(w io.Writer, rows []row) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "name\tvalue\tunit\tfloor\tratio\ttarget\tok")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%v\t%s\t%v\t%v\t%v\t%s\n", r.Name, r.Value, r.Unit, r.Floor, r.Ratio, r.Target, r.verdict())
	}
	return tw.Flush()
}
