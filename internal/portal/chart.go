package portal

import (
	"fmt"
	"time"
)

// The chart's measures, in units of its own; the page scales it.
const (
	chartHeight = 120
	barStep     = 20
	barWidth    = 14
)

// A bar is one day of the chart.
type bar struct {
	X, Y, Height             int // of the uses
	DeniedY, DeniedHeight    int // of what was denied, on top
	Issued, Denied           int64
	Day                      time.Time
	Label                    string // under the bar; empty for most
	LabelX, LabelY, BarWidth int
}

// A chart shows a month.
type chart struct {
	Bars           []bar
	Width, Height  int
	Issued, Denied int64
	Most           int64 // of one day
}

// Chart draws the month. Every day has a place, so that a quiet one is seen.
func (p *partnerPage) Chart() chart {
	count := make(map[time.Time]DayCount)
	var c chart
	for _, d := range p.History.Days {
		count[d.Day] = d
		c.Issued, c.Denied, c.Most = c.Issued+d.Issued, c.Denied+d.Denied, max(c.Most, d.Issued+d.Denied)
	}
	for at := p.Filter.Month; at.Month() == p.Filter.Month.Month(); at = at.AddDate(0, 0, 1) {
		c.Bars = append(c.Bars, c.bar(len(c.Bars), at, count[at]))
	}
	c.Width, c.Height = len(c.Bars)*barStep, chartHeight+20
	return c
}

func (c *chart) bar(i int, at time.Time, d DayCount) bar {
	b := bar{Day: at, X: i*barStep + (barStep-barWidth)/2, Issued: d.Issued, Denied: d.Denied, BarWidth: barWidth}
	b.Height, b.DeniedHeight = c.height(d.Issued), c.height(d.Denied)
	b.Y = chartHeight - b.Height
	b.DeniedY = b.Y - b.DeniedHeight
	if i%5 == 0 {
		b.Label = fmt.Sprint(i + 1)
	}
	b.LabelX, b.LabelY = b.X+barWidth/2, chartHeight+16
	return b
}

// height is how high n is. What is there at all is seen.
func (c *chart) height(n int64) int {
	if n == 0 || c.Most == 0 {
		return 0
	}
	return max(2, int(n*(chartHeight-4)/c.Most))
}

// Days are the days on which anything happened.
func (c chart) Days() []bar {
	var out []bar
	for _, b := range c.Bars {
		if b.Issued+b.Denied > 0 {
			out = append(out, b)
		}
	}
	return out
}
