package fault

import "errors"

// SignIn are the dials of device codes and refresh tokens, and of how old a
// sign-in may be. The zero value is Entra's own behaviour.
type SignIn struct {
	// DeviceCodeSeconds is how long a device code lives; 0: 15 minutes.
	DeviceCodeSeconds int `json:"device_code_seconds,omitempty"`

	// DeviceIntervalSeconds is how long a device waits between two polls, and
	// the interval that it is told. One that comes sooner is told slow_down.
	// 0: the device is told five seconds, and may come as often as it likes,
	// since some libraries do.
	DeviceIntervalSeconds int `json:"device_interval_seconds,omitempty"`

	// RefreshWindowSeconds is how long a refresh token may lie idle (700082),
	// and at the most how long one of a single-page application lives
	// (700084); 0: 90 days, and one day.
	RefreshWindowSeconds int `json:"refresh_window_seconds,omitempty"`

	// UsedRefreshSeconds is how long a refresh token is still good after it
	// was first exchanged for another one (70000 then); 0: until it dies in
	// another way, since in Entra using one does not end it.
	UsedRefreshSeconds int `json:"used_refresh_seconds,omitempty"`

	// FrequencySeconds is the sign-in frequency that conditional access
	// demands: a refresh token that goes back to an older sign-in is refused
	// (70043). 0: no demand.
	FrequencySeconds int `json:"frequency_seconds,omitempty"`

	// OldErrorText puts the parts of an error_description on lines of their
	// own, as Entra did until 2023, instead of one after the other.
	OldErrorText bool `json:"old_error_text,omitempty"`
}

func (s SignIn) check() error {
	if min(s.DeviceCodeSeconds, s.DeviceIntervalSeconds, s.RefreshWindowSeconds, s.UsedRefreshSeconds, s.FrequencySeconds) < 0 {
		return errors.New("sign_in cannot have a negative number of seconds")
	}
	return nil
}
