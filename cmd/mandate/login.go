package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

// loginTimeout is how long a sign-in may take.
const loginTimeout = 10 * time.Minute

// askToOpen says which page to sign in at, also to a program: nothing goes on
// before somebody does.
func (c *cli) askToOpen(address string) {
	if c.json {
		_ = json.NewEncoder(c.err).Encode(map[string]string{"open": address})
		return
	}
	for _, line := range []string{"Open this page in a browser on this machine, and sign in:", "", "  " + address, ""} {
		c.note("%s", line)
	}
}

func (c *cli) loginCommand() *cobra.Command {
	var port uint16
	cmd := &cobra.Command{
		Use:   "login --server URL",
		Short: "Sign in as an operator",
		Long: `Login signs you in with a browser on this machine, and keeps the session in a file
that only you can read: at most eight hours. What makes things looser (adding
callers, resuming, approving, importing, changing keys or the policy) needs a
sign-in that is less than ten minutes old, so log in again before it.

Other commands use the session where --server or $MANDATE_SERVER names the server.
A server whose certificate is of an authority of your own is trusted where the system
trusts that; on Linux $SSL_CERT_FILE may name a file with it.

The sign-in page sends the browser back to this machine. On one that you have reached by
ssh, fix the port with --port and have ssh carry it from where your browser is. There is no
sign-in by a code that is typed elsewhere: somebody could have you type theirs.`,
		Example: `  mandate login --server https://mandate.example.com:8444
  ssh -t -L 8400:localhost:8400 jump.example.com mandate login --port 8400 --server https://mandate.example.com:8444`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.serverURL() == "" {
				return usage("--server or $MANDATE_SERVER is required; see %s --help", cmd.CommandPath())
			}
			client, err := api.NewOpenClient(c.serverURL(), nil)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), loginTimeout)
			defer cancel()
			in, err := signIn(ctx, client, http.DefaultClient, port, c.askToOpen)
			if err != nil {
				return err
			}
			if err := saveSession(session{c.serverURL(), in.Session, in.Expires}); err != nil {
				return err
			}
			if c.json {
				in.Session = ""
				return c.printJSON(in)
			}
			c.note("Signed in as %s (%s) until %s: %s", in.UserName, in.Caller, moment(in.Expires), strings.Join(in.Roles, ", "))
			return nil
		},
	}
	cmd.Flags().Uint16Var(&port, "port", 0, "port of this machine that the browser comes back to (default: a free one)")
	return cmd
}

func (c *cli) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "logout",
		Short:   "End the session of a sign-in",
		Long:    `Logout ends the session here and on the server.`,
		Example: "  mandate logout",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSession()
			if err != nil {
				return err
			}
			client, err := api.NewOpenClient(s.Server, nil)
			if err == nil {
				err = client.WithSession(mandate.NewSecret(s.Session)).EndSignIn(cmd.Context())
			}
			path, perr := sessionFile()
			return errors.Join(err, perr, os.Remove(path))
		},
	}
}

// serverURL returns the server that is named, or "".
func (c *cli) serverURL() string {
	if c.server != "" {
		return c.server
	}
	if c.socket != "" {
		return ""
	}
	return os.Getenv("MANDATE_SERVER")
}

// overNetwork returns a client of a server for somebody who has signed in.
func (c *cli) overNetwork() (*api.Client, error) {
	if c.breakGlass != "" {
		return nil, usage("--break-glass is for the socket: over the network, sign in")
	}
	s, err := loadSession()
	if err != nil || s.Server != c.serverURL() {
		return nil, fmt.Errorf("%w: you have not signed in to %s: mandate login", mandate.ErrUnauthenticated, c.serverURL())
	}
	client, err := api.NewOpenClient(s.Server, nil)
	if err != nil {
		return nil, err
	}
	return client.WithSession(mandate.NewSecret(s.Session)), nil
}

// A session is what is kept of a sign-in.
type session struct {
	Server  string    `json:"server"`
	Session string    `json:"session"`
	Expires time.Time `json:"expires"`
}

func sessionFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "mandate", "session.json"), err
}

func loadSession() (s session, err error) {
	path, err := sessionFile()
	if err != nil {
		return s, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("%w: you have not signed in: mandate login", mandate.ErrUnauthenticated)
	}
	return s, json.Unmarshal(data, &s)
}

// saveSession writes the file anew, so that it never has another mode, nor a
// half of it.
func saveSession(s session) error {
	path, err := sessionFile()
	if err != nil {
		return err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "session-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// signIn goes through the authorization code flow with PKCE (RFC 7636) and a
// loopback redirect (RFC 8252), and trades the ID token for a session. Port 0 is
// any that is free; open is told the page to show.
func signIn(ctx context.Context, client *api.Client, h *http.Client, port uint16, open func(address string)) (api.SignedIn, error) {
	start, err := client.BeginSignIn(ctx)
	if err != nil {
		return api.SignedIn{}, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return api.SignedIn{}, err
	}
	redirect := fmt.Sprintf("http://localhost:%d", l.Addr().(*net.TCPAddr).Port)
	state, verifier := random(), random()
	challenge := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"client_id": {start.ClientID}, "response_type": {"code"}, "response_mode": {"query"}, "redirect_uri": {redirect}, "scope": {start.Scope},
		"state": {state}, "nonce": {start.Nonce}, "prompt": {"login"}, "claims": {start.Claims},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	open(start.AuthorizeURL + "?" + q.Encode())
	code, err := awaitCode(ctx, l, state)
	if err != nil {
		return api.SignedIn{}, err
	}
	idToken, err := redeem(ctx, h, start.TokenURL, url.Values{
		"client_id": {start.ClientID}, "grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}, "scope": {start.Scope},
	})
	if err != nil {
		return api.SignedIn{}, err
	}
	return client.FinishSignIn(ctx, idToken)
}

func random() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// awaitCode serves the loopback redirect until the browser brings the code of
// this sign-in. What does not know the state is not answered.
func awaitCode(ctx context.Context, l net.Listener, state string) (string, error) {
	type outcome struct {
		code string
		err  error
	}
	came := make(chan outcome, 1)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/" || r.Method != http.MethodGet || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) == 0 {
			http.NotFound(w, r)
			return
		}
		o := outcome{code: q.Get("code")}
		text := "Microsoft has sent you back: the terminal says whether you are signed in. You can close this page.\n"
		if o.code == "" {
			o.err = fmt.Errorf("%w: the sign-in page answered %.80q: %.300s", mandate.ErrUnauthenticated, q.Get("error"), q.Get("error_description"))
			text = "The sign-in did not work. The terminal says more.\n"
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, text)
		select {
		case came <- o:
		default:
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = errors.Join(srv.Shutdown(ctx), srv.Close())
		<-done
	}()
	select {
	case o := <-came:
		return o.code, o.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// maxTokenAnswer is the longest answer of a token endpoint that is read, in
// bytes.
const maxTokenAnswer = 1 << 20

// redeem trades a code for an ID token.
func redeem(ctx context.Context, h *http.Client, tokenURL string, form url.Values) (mandate.Secret, error) {
	if !strings.HasPrefix(tokenURL, "https://") {
		return mandate.Secret{}, errors.New("the token endpoint does not begin with https://")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, tokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return mandate.Secret{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	direct := *h
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := direct.Do(req)
	if err != nil {
		return mandate.Secret{}, err
	}
	defer resp.Body.Close()
	var a struct {
		IDToken     string `json:"id_token"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTokenAnswer)).Decode(&a); err != nil {
		return mandate.Secret{}, fmt.Errorf("the token endpoint answered %d, and not in JSON", resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK || a.IDToken == "" {
		return mandate.Secret{}, fmt.Errorf("%w: the token endpoint answered %d %.80q: %.300s", mandate.ErrUnauthenticated, resp.StatusCode, a.Error, a.Description)
	}
	return mandate.NewSecret(a.IDToken), nil
}
