// The type of a dashboard in helm/: Grafana's own types, as JSON can express them, with
// the options of each kind of panel that we use. check_dashboards.py compiles with it.
import type * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import type * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as table from "@grafana/grafana-foundation-sdk/table";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

// The SDK has enums where JSON has their values, and markers that are methods.
type Json<T> = 0 extends 1 & T
  ? any
  : T extends string
    ? `${T}`
    : T extends number
      ? `${T}` extends `${infer N extends number}`
        ? N
        : never
      : T extends (infer E)[]
        ? Json<E>[]
        : T extends object
          ? { [K in keyof T as T[K] extends Function ? never : K]: Json<T[K]> }
          : T;

// Grafana fills in what options leave out.
type Sparse<T> = T extends unknown[] ? T : T extends object ? { [K in keyof T]?: Sparse<T[K]> } : T;

type FieldConfig<Custom> = {
  defaults: Omit<Json<dashboard.FieldConfig>, "custom"> & { custom?: Sparse<Json<Custom>> };
  overrides: Json<dashboard.FieldConfigSource["overrides"]>;
};

// A panel without what makes it useful here is an error, though Grafana would show it.
type Panel<Type extends string, Options, Custom> = Omit<
  Json<dashboard.Panel>,
  "type" | "title" | "datasource" | "gridPos" | "targets" | "options" | "fieldConfig"
> & {
  type: Type;
  title: string;
  datasource: { type: "prometheus"; uid: string };
  gridPos: Json<dashboard.GridPos>;
  targets: (Json<prometheus.Dataquery> & { refId: string })[];
  options: Sparse<Json<Options>>;
  fieldConfig: FieldConfig<Custom>;
};

export type Dashboard = Omit<Json<dashboard.Dashboard>, "title" | "uid" | "panels"> & {
  title: string;
  uid: string;
  panels: (
    | Panel<"stat", stat.Options, {}>
    | Panel<"timeseries", timeseries.Options, timeseries.FieldConfig>
    | Panel<"table", table.Options, table.FieldConfig>
  )[];
};
