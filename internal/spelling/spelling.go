// Package spelling finds the word that a misspelt one was meant to be.
package spelling

// Suggest returns the one of known that s was probably meant to be, or "" if
// none is near: it allows one mistake in three letters, and one in fewer. It
// is for words that were typed with care, such as the keys of a file.
func Suggest(s string, known []string) string { return Nearest(s, known, max(1, len(s)/3)) }

// Nearest returns the one of known that is nearest to s, the first of them if
// several are, or "" if none can be reached by most mistakes. A mistake is a
// byte inserted, removed or replaced; two letters in the wrong order are two,
// and so is a letter of two bytes. Case counts. A word of which no letter was
// typed is near nothing.
//
// It takes len(s) times the length of all that is known: whoever takes s from
// a stranger bounds it first.
func Nearest(s string, known []string, most int) string {
	best, limit := "", most+1
	for _, k := range known {
		if d := distance(s, k); d < limit && d < len(k) {
			best, limit = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
