package spelling

import "testing"

func TestSuggest(t *testing.T) {
	known := []string{"listen", "public_url", "name"}
	for in, want := range map[string]string{
		"listn": "listen", "publicurl": "public_url", "nmae": "", "name": "name", "x": "", "": "",
		"pblicurl": "public_url", "pblicul": "", "lisetn": "listen", "Name": "name", "NAME": "",
	} {
		if got := Suggest(in, known); got != want {
			t.Errorf("Suggest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, tt := range []struct {
		in    string
		known []string
		most  int
		want  string
	}{
		{"acme", nil, 2, ""},
		{"amce", []string{"acme"}, 2, "acme"},
		{"amce", []string{"acme"}, 1, ""},
		{"contosos12", []string{"contoso"}, 2, ""},
		{"contosos1", []string{"contoso"}, 2, "contoso"},
		{"abd", []string{"xbd", "abc", "ab"}, 2, "xbd"},
		{"abcd", []string{"xbc", "abc"}, 2, "abc"},
		{"", []string{"a", "ab"}, 2, ""},
		{"x", []string{"a", "ab"}, 2, ""},
		{"xb", []string{"ab"}, 2, "ab"},
	} {
		if got := Nearest(tt.in, tt.known, tt.most); got != tt.want {
			t.Errorf("Nearest(%q, %q, %d) = %q, want %q", tt.in, tt.known, tt.most, got, tt.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"same", "same", 0}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"ab", "ba", 2}, {"é", "e", 2},
	} {
		if got, back := distance(tt.a, tt.b), distance(tt.b, tt.a); got != tt.want || back != tt.want {
			t.Errorf("distance of %q and %q is %d, and back %d, want %d", tt.a, tt.b, got, back, tt.want)
		}
	}
}
