;;; verdicts.scm --- what a residency policy answers, and what it is asked about.
;;;
;;; Anything other than these lists is taken as a denial. A rule's name stands in
;;; refusals, audits and reports, so name it after what it demands.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide record-class record-law record-basis record-purpose
         allow-in allow deny define-region-policy
         rule rule-residency rule-transfer)

;;@doc
;; The regions of these ids may hold the record; no other may.
(define (allow-in ids rule obligations)
  (list 'allow-in ids rule obligations))

;;@doc
;; Yes, with these duties.
(define (allow rule obligations)
  (list 'allow rule obligations))

;;@doc
;; No.
(define (deny rule)
  (list 'deny rule))

;;@doc
;; A rule: its name, a test on the law of a region, and the duties that come with a yes.
(define (rule name lawful? obligations)
  (list name lawful? obligations))

(define (rule-allows? rule region)
  ((cadr rule) (region-law region)))

;;@doc
;; Which of the regions may hold what the rule governs.
(define (rule-residency rule regions)
  (define homes (filter (lambda (region) (rule-allows? rule region)) regions))
  (if (null? homes)
      (deny (car rule))
      (allow-in (map region-id homes) (car rule) (caddr rule))))

;;@doc
;; Whether it may travel from one region to another: only if both may hold it.
(define (rule-transfer rule from to)
  (if (and (rule-allows? rule from) (rule-allows? rule to))
      (allow (car rule) (caddr rule))
      (deny (car rule))))
