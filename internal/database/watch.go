package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// pollEvery is how often the epoch is read, notices or not.
	pollEvery = 200 * time.Millisecond

	// cutOff is how old the last good read of the epoch may be, counted from
	// its beginning. A second is promised; the rest is for the way to the
	// caller.
	cutOff = 750 * time.Millisecond

	helloWithin = 2 * time.Second  // how long a notice may take to arrive
	helloEvery  = 10 * time.Second // how often it is seen whether one does

	firstRetry, lastRetry = 100 * time.Millisecond, 2 * time.Second // of listening
)

// watched is what keeps an eye on PostgreSQL.
type watched struct {
	poller *sql.DB         // one connection
	way    *route          // the way of the pool and the poller
	listen *pgx.ConnConfig // the way to it that is not a pooler's
	wake   chan struct{}   // the epoch has been raised somewhere
}

// Run watches the epoch, which other replicas raise too, and delivers their
// notices, until ctx is done or the database is closed. With SQLite there are
// no others. It returns nil.
//
// The epoch is read several times a second, and at once after a notice of
// another replica's change. If the server cannot be had, is frozen, or has
// become a standby, [DB.Epoch] says so within a second; Run goes on trying.
func (d *DB) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()
	if d.pg == nil {
		<-ctx.Done()
		return nil
	}
	var listening sync.WaitGroup
	listening.Go(func() { d.listen(ctx) })
	d.poll(ctx)
	listening.Wait()
	return nil
}

// poll reads the epoch again and again.
func (d *DB) poll(ctx context.Context) {
	told := false
	for {
		began := time.Now()
		err := d.readEpoch(ctx, cutOff) // after which it would not count
		if ctx.Err() != nil {
			return
		}
		told = d.tell(err, told)
		select {
		case <-d.pg.wake:
		case <-time.After(pollEvery - time.Since(began)):
		case <-ctx.Done():
			return
		}
	}
}

// tell logs that the replica is cut off, or no longer; told is what it
// returned before.
func (d *DB) tell(err error, told bool) bool {
	switch {
	case err == nil && told:
		d.log.Info("the database answers again")
		return false
	case err != nil && !told && d.cutOff():
		d.log.Error("the database does not answer; nothing is handed out until it does", "error", err)
		return true
	}
	return told
}

// readEpoch reads the epoch from a server that can also write it: a standby
// may be behind.
func (d *DB) readEpoch(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	began, seen := time.Now(), d.epoch.Load()
	var epoch int64
	var readOnly string
	err := d.pg.poller.QueryRowContext(ctx, `SELECT epoch, current_setting('transaction_read_only') FROM head`).Scan(&epoch, &readOnly)
	switch {
	case err != nil:
		return fmt.Errorf("read epoch: %w", err)
	case readOnly != "off":
		return fmt.Errorf("read epoch: %w", errReadOnly)
	case epoch < seen:
		return d.wentBack(epoch, seen)
	}
	d.raise(epoch)
	d.read.Store(&began)
	return nil
}

// cutOff reports whether the epoch could have moved on too long ago without
// being noticed. Both clocks are asked: the monotonic one stands still while a
// machine is suspended, and the other can be set back.
func (d *DB) cutOff() bool {
	read := d.read.Load()
	if read == nil {
		return false // SQLite
	}
	now := time.Now()
	return max(now.Sub(*read), now.Round(0).Sub(read.Round(0))) > cutOff
}

// listen delivers notices, through one connection after the other. That there
// are none is said once, until there are some again.
func (d *DB) listen(ctx context.Context) {
	told := false
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		heard, err := d.hear(ctx, told)
		if ctx.Err() != nil {
			return
		}
		if heard {
			wait, told = firstRetry, false
		}
		if !told {
			d.log.Warn("no notices from PostgreSQL; changes are seen by polling, a little later", "error", err)
			told = true
		}
		select {
		case <-time.After(jitter(wait)):
		case <-ctx.Done():
			return
		}
	}
}

// errDeaf: LISTEN was accepted, and nothing came.
var errDeaf = errors.New("notices do not arrive: set a listen URL that leads to PostgreSQL without a pooler")

// hear delivers notices through one connection until that fails, and reports
// whether any came. Every now and then it sends one to itself, from another
// connection, because neither a pooler nor a dead server says that nothing
// will come.
func (d *DB) hear(ctx context.Context, told bool) (heard bool, err error) {
	conn, err := d.connectListener(ctx)
	if err != nil {
		return false, err
	}
	defer closeListener(conn)
	for {
		hello := nonce()
		if _, err := d.Exec(ctx, sendNotice, topicHello+":"+hello); err != nil {
			return heard, err
		}
		if err := d.attend(ctx, conn, helloWithin, hello); err != nil {
			return heard, err
		}
		if !heard && told {
			d.log.Info("notices from PostgreSQL arrive again")
		}
		heard = true
		if err := d.attend(ctx, conn, helloEvery, ""); err != nil {
			return heard, err
		}
	}
}

func (d *DB) connectListener(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, d.pg.listen)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `LISTEN mandate`); err != nil {
		closeListener(conn)
		return nil, err
	}
	return conn, nil
}

func closeListener(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn.Close(ctx)
}

// attend delivers what arrives for some time, or until it is the hello.
func (d *DB) attend(ctx context.Context, conn *pgx.Conn, during time.Duration, hello string) error {
	limited, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(limited)
		switch {
		case err != nil && limited.Err() != nil && hello == "":
			return ctx.Err()
		case err != nil && limited.Err() != nil:
			return errDeaf
		case err != nil:
			return err
		}
		switch topic, payload, _ := strings.Cut(n.Payload, ":"); topic {
		case topicEpoch:
			d.wakeUp()
		case topicHello:
			if hello != "" && payload == hello {
				return nil
			}
		default:
			d.deliver([]notice{{topic, payload}})
		}
	}
}

// wakeUp has the epoch read now. The notice's own number is not believed:
// anybody who can connect can send one.
func (d *DB) wakeUp() {
	select {
	case d.pg.wake <- struct{}{}:
	default:
	}
}
