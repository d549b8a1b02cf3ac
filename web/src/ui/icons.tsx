/** The page's few drawings. Each is decoration: the button around it has the words. */

import type { ReactNode } from "react";

function Icon({ children, size = 18 }: { children: ReactNode; size?: number }) {
  return (
    <svg
      className="icon"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.8"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const Pen = () => <Icon><path d="M4 20h4L19 9l-4-4L4 16v4z" /></Icon>;
export const NewChat = () => <Icon><path d="M12 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-6" /><path d="M9.5 14.5l1-3.5L18 3.5l2.5 2.5L13 13.5l-3.5 1z" /></Icon>;
export const Panel = () => <Icon><rect x="3.5" y="4.5" width="17" height="15" rx="3" /><path d="M9.5 4.5v15" /></Icon>;
export const Search = () => <Icon size={16}><circle cx="11" cy="11" r="6.5" /><path d="M16 16l4.5 4.5" /></Icon>;
export const Cross = () => <Icon size={16}><path d="M6 6l12 12M18 6L6 18" /></Icon>;
export const Dots = () => <Icon><path d="M5 12h.01M12 12h.01M19 12h.01" strokeWidth="2.6" /></Icon>;
export const Pin = () => <Icon size={16}><path d="M9 4h6l-1 6 3 3v2H7v-2l3-3-1-6zM12 15v5" /></Icon>;
export const Link = () => <Icon size={16}><path d="M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7L12 7M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7L12 17" /></Icon>;
export const Trash = () => <Icon size={16}><path d="M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7M10.5 11v5M13.5 11v5" /></Icon>;
export const Gear = () => <Icon><circle cx="12" cy="12" r="3" /><path d="M12 3.5v2.3M12 18.2v2.3M20.5 12h-2.3M5.8 12H3.5M18 6l-1.6 1.6M7.6 16.400L6 18M18 18l-1.6-1.6M7.6 7.6L6 6" /></Icon>;
export const ArrowUp = () => <Icon><path d="M12 19V5.5M6 11l6-6 6 6" strokeWidth="2.2" /></Icon>;
export const ArrowDown = () => <Icon><path d="M12 5v13.5M6 13l6 6 6-6" /></Icon>;
export const Square = () => <Icon size={16}><rect x="6" y="6" width="12" height="12" rx="2" fill="currentColor" stroke="none" /></Icon>;
export const Copy = () => <Icon size={16}><rect x="9" y="9" width="11" height="11" rx="2" /><path d="M5 15V6a2 2 0 0 1 2-2h8" /></Icon>;
export const Check = () => <Icon size={16}><path d="M5 12.5l4.5 4.5L19 7.5" /></Icon>;
export const Again = () => <Icon size={16}><path d="M19.5 12a7.5 7.5 0 1 1-2.2-5.3L20 9M20 4v5h-5" /></Icon>;
export const Left = () => <Icon size={16}><path d="M14.5 6l-6 6 6 6" /></Icon>;
export const Right = () => <Icon size={16}><path d="M9.5 6l6 6-6 6" /></Icon>;
export const Clip = () => <Icon><path d="M20 11.5l-8 8a5 5 0 0 1-7-7L13.5 4a3.3 3.3 0 0 1 4.7 4.7l-8.3 8.3a1.7 1.7 0 0 1-2.400-2.400l7.5-7.5" /></Icon>;
export const File = () => <Icon><path d="M7 3.5h7l4.5 4.5V19a1.5 1.5 0 0 1-1.5 1.5H7A1.5 1.5 0 0 1 5.5 19V5A1.5 1.5 0 0 1 7 3.5zM14 3.5V8h4.5" /></Icon>;
export const Warning = () => <Icon><path d="M12 4l9 16H3l9-16zM12 10v4.5M12 17.3h.01" /></Icon>;
export const Cloud = () => <Icon size={16}><path d="M4 4l16 16M9 7.2A6 6 0 0 1 17.8 11 4 4 0 0 1 20.5 17M15 18.5H7a4.5 4.5 0 0 1-1.2-8.8" /></Icon>;
export const Spark = () => <Icon size={16}><path d="M12 3l2 7 7 2-7 2-2 7-2-7-7-2 7-2 2-7z" /></Icon>;
export const Tool = () => <Icon size={16}><path d="M14.5 6.5a4 4 0 0 1 5-1l-2.7 2.7 1 2 2 1L22 8.5" transform="translate(-1.5 -.5)" /><path d="M14 10L5 19" strokeWidth="3" /></Icon>;
