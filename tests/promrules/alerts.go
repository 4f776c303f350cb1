package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

// evaluation is rules and the series over which they are evaluated, once a minute from 1970 on.
type evaluation struct {
	// A file of alert rules.
	Rules string
	// Series in the notation of promtool's tests: a selector, a space, and the value of each minute.
	Series []string
	// The minutes after which the firing alerts are printed.
	Minutes []int
}

// firing is an alert that fires after a minute.
type firing struct {
	Minute int    `json:"minute"`
	Alert  string `json:"alert"`
	// Without the alert's name.
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// alerts evaluates rules as promtool's tests of rules do (its package cannot be imported), and prints each firing
// alert as a line of JSON.
func alerts(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var input evaluation
	if err := json.Unmarshal(text, &input); err != nil {
		return 0, err
	}
	loader, err := promqltest.NewLazyLoader("load 1m\n  "+strings.Join(input.Series, "\n  "), promqltest.LazyLoaderOpts{Parser: promql})
	if err != nil {
		return 0, err
	}
	defer loader.Close()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(loader.QueryEngine(), loader.Storage()),
		AppendableV2: loader.Storage(),
		Context:      context.Background(),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Logger:       slog.New(slog.DiscardHandler),
		Parser:       promql,
	})
	groups, wrong := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, input.Rules)
	if len(wrong) > 0 {
		return 0, errors.Join(wrong...)
	}
	sort.Ints(input.Minutes)
	count, out := 0, json.NewEncoder(os.Stdout)
	for minute := 0; len(input.Minutes) > 0; minute++ {
		if err := evaluate(loader, groups, time.Unix(int64(minute)*60, 0)); err != nil {
			return 0, err
		}
		if input.Minutes[0] > minute {
			continue
		}
		input.Minutes = input.Minutes[1:]
		for _, one := range firingIn(groups) {
			one.Minute = minute
			count++
			if err := out.Encode(one); err != nil {
				return 0, err
			}
		}
	}
	return count, nil
}

func evaluate(loader *promqltest.LazyLoader, groups map[string]*rules.Group, at time.Time) (err error) {
	loader.WithSamplesTill(at, func(failed error) {
		if err = failed; err != nil {
			return
		}
		for _, group := range groups {
			group.Eval(loader.Context(), at)
			for _, rule := range group.Rules() {
				if failed := rule.LastError(); failed != nil {
					err = errors.Join(err, fmt.Errorf("%s at %s: %w", rule.Name(), at.UTC(), failed))
				}
			}
		}
	})
	return err
}

func firingIn(groups map[string]*rules.Group) (found []firing) {
	for _, group := range groups {
		for _, rule := range group.Rules() {
			alerting, is := rule.(*rules.AlertingRule)
			if !is {
				continue
			}
			for _, alert := range alerting.ActiveAlerts() {
				if alert.State != rules.StateFiring {
					continue
				}
				named := alert.Labels.Map()
				delete(named, labels.AlertName)
				found = append(found, firing{Alert: rule.Name(), Labels: named, Annotations: alert.Annotations.Map()})
			}
		}
	}
	sort.Slice(found, func(a, b int) bool { return fmt.Sprint(found[a]) < fmt.Sprint(found[b]) })
	return found
}
