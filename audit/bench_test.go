package audit

import (
	"bytes"
	"fmt"
	"testing"
)

func BenchmarkRecord(b *testing.B) {
	l := openLog(b, testConfig(b))
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := l.Record(b.Context(), testRecord(i%16, "")); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkVerify verifies exports of 20,000 records.
func BenchmarkVerify(b *testing.B) {
	cfg := testConfig(b)
	l := openLog(b, cfg)
	const n = 20_000
	batches := &batch{}
	for i := range n {
		r := testRecord(i%16, fmt.Sprint(i))
		batches.items = append(batches.items, &item{kind: r.Kind, chain: chainOf(&r), epoch: r.Epoch, body: must(bodyFor(b, l, r))})
	}
	if _, err := l.store.write(b.Context(), batches); err != nil {
		b.Fatal(err)
	}
	data := export(b, l, Export{Whole: true})
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if v, err := Verify(bytes.NewReader(data), Verification{Key: cfg.Public}); err != nil || !v.OK {
			b.Fatal(v, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
}
