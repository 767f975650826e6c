package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// A Forecaster tells what breaks next.
type Forecaster interface {
	// Forecast returns everything that breaks unless somebody does something,
	// the earliest first.
	Forecast(context.Context) ([]mandate.Trouble, error)
}

type forecastAnswer struct {
	Troubles []mandate.Trouble `json:"troubles"`
}

// forecast is GET /v1/forecast.
func (s *Server) forecast(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	all, err := s.cfg.Forecaster.Forecast(r.Context())
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, forecastAnswer{append([]mandate.Trouble{}, all...)})
}

// metrics is GET /metrics, in the text format of Prometheus.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	if s.cfg.Metrics == nil {
		return fmt.Errorf("%w: this server has no metrics", mandate.ErrNotFound)
	}
	s.cfg.Metrics.ServeHTTP(w, r)
	return nil
}
