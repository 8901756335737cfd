// Drawn for this page, 20 by 20, in the colour of the text around them.
const icon = (path: string) => () => (
  <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
    <path d={path} />
  </svg>
);

export const icons = {
  chat: icon("M3 5.5A1.5 1.5 0 0 1 4.5 4h11A1.5 1.5 0 0 1 17 5.5v7a1.5 1.5 0 0 1-1.5 1.5H9l-4 3v-3h-.500A1.5 1.5 0 0 1 3 12.5z"),
  experts: icon("M10 3l6 3.5v7L10 17l-6-3.5v-7zM4 6.5l6 3.5 6-3.5M10 10v7"),
  routing: icon("M3 3h4v4H3zM8 3h4v4H8zM13 3h4v4h-4zM3 8h4v4H3zM8 8h4v4H8zM13 8h4v4h-4zM3 13h4v4H3zM8 13h4v4H8zM13 13h4v4h-4z"),
  machine: icon("M2.5 10h3l2-5.5 4 11 2.5-7 1.2 1.5h2.3"),
  send: icon("M10 16V4M5 9l5-5 5 5"),
  stop: icon("M5.5 5.5h9v9h-9z"),
  again: icon("M15.5 7A6.2 6.2 0 1 0 16 11.5M16 3.5V7.5h-4"),
  compare: icon("M3.5 4.5h5v11h-5zM11.5 4.5h5v11h-5z"),
  fresh: icon("M10 4v12M4 10h12"),
  sun: icon("M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7M10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M4.3 15.7l1.1-1.1M14.6 5.4l1.1-1.1"),
  moon: icon("M16 12A6.5 6.5 0 0 1 8 4a6.5 6.5 0 1 0 8 8z"),
  leave: icon("M8 4H4.5v12H8M12 6.5L15.5 10 12 13.5M15 10H8"),
  back: icon("M7.5 5L3.5 9l4 4M4 9h8a4 4 0 0 1 0 8H9"),
  sliders: icon("M3 6h7M14 6h3M3 14h3M10 14h7M12 4v4M8 12v4"),
};
