import { render } from "preact";
import { App } from "./app";
import { takeKeyFromAddress } from "./key";
import { refresh } from "./live";
import "./style.css";
import "./views.css";
import "uplot/dist/uPlot.min.css";

takeKeyFromAddress();
void refresh();
render(<App />, document.getElementById("console")!);
