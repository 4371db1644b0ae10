;;; data-residency.scm --- where a record may be, and where it may travel.
;;;
;;; Asked:    for each case (class, law, basis, purpose) when facts change; the answers
;;;           are kept as a plan. A record with several labels gets the strictest.
;;; Returns:  (allow-in ids 'rule duties), (allow 'rule duties) or (deny 'rule).
;;; On error: denied. These rules encode facts as verified on 2026-07-30; they are
;;;           not legal advice.

(require "repomind/prelude.scm")
(require "repomind/regions.scm")
(require "repomind/verdicts.scm")
(require "repomind/testing.scm")
(provide policy-api residency transfer)

(define policy-api 1)

;; About nobody: may be anywhere.
(define free-classes '(public operational source-code))

;; These keep personal data at home: Russia 242-FZ; China PIPL, taken strictly
;; because its thresholds count people and no single record can show them.
(define localised '(RU CN))

;; Adequate to the EU Commission: https://commission.europa.eu, GB until 2031-12-27.
(define adequate '(eea GB CH CA JP KR BR))

;; The US is adequate only for recipients certified under the Data Privacy Framework
;; (appeal C-703/25 P pending). Set to #f when you are not, or when it falls.
(define us-framework? #t)

(define (adequate? law) (or (member law adequate) (and us-framework? (equal? law 'US))))

;; A rule is its name, a test on the law of a region, and the duties that it brings.
(define (rule-for record)
  (define class (record-class record))
  (cond [(member class free-classes) (list 'not-personal-goes-anywhere (lambda (law) #t) '())]
        [(equal? class 'credentials)
         (list 'credentials-avoid-localising-states (lambda (law) (not (member law localised))) '(encrypt-at-rest))]
        [else (personal-rule (record-law record))]))

(define (personal-rule law)
  (cond [(equal? law 'eea) (list 'eea-personal-stays-in-eea (lambda (there) (equal? there 'eea)) '(encrypt-at-rest))]
        [(equal? law 'none) (list 'personal-must-state-jurisdiction (lambda (there) #f) '())]
        [(member law localised) (list 'localised-personal-stays-home (lambda (there) (equal? there law)) '(encrypt-at-rest))]
        [else (list 'personal-home-or-adequate
                    (lambda (there) (or (adequate? there) (and (equal? there law) (not (equal? law 'other)))))
                    '(encrypt-at-rest))]))

(define (lawful? rule region) ((cadr rule) (region-law region)))

(define (residency-among record regions)
  (define rule (rule-for record))
  (define homes (filter (lambda (region) (lawful? rule region)) regions))
  (if (null? homes) (deny (car rule)) (allow-in (region-ids homes) (car rule) (caddr rule))))

;;@doc
;; Which of all regions may hold the record.
(define (residency record) (residency-among record (all-regions)))

;;@doc
;; Whether it may travel: only between regions that may both hold it.
(define (transfer record from to)
  (define rule (rule-for record))
  (if (and (lawful? rule from) (lawful? rule to)) (allow (car rule) (caddr rule)) (deny (car rule))))

(define us (sample-region 'us-east))
(define ireland (sample-region 'eu-west #:country "IE"))
(define germany (sample-region 'eu-central #:country "DE"))
(define moscow (sample-region 'ru-central #:country "RU"))
(define everywhere (list us ireland germany moscow (sample-region 'ap-southeast #:country "SG")))
(define (personal law) (sample-record #:class 'personal #:law law))
(define (homes record) (let ([verdict (residency-among record everywhere)])
                         (if (equal? (car verdict) 'allow-in) (cadr verdict) '())))

(test-module "data-residency"
  (check-equal? "personal data of the EEA stays there, and a new region there takes part"
                (homes (personal 'eea)) '(eu-west eu-central))
  (check-equal? "health data is personal data" (homes (sample-record #:class 'health #:law 'eea)) '(eu-west eu-central))
  (check-equal? "it may travel within the EEA" (car (transfer (personal 'eea) ireland germany)) 'allow)
  (check-equal? "and not out of it, nor into it from outside"
                (list (transfer (personal 'eea) ireland us) (transfer (personal 'eea) us ireland))
                (list (deny 'eea-personal-stays-in-eea) (deny 'eea-personal-stays-in-eea)))
  (check-equal? "Russian data stays in Russia; Chinese data has no home here"
                (list (homes (personal 'RU)) (homes (personal 'CN))) '((ru-central) ()))
  (check-equal? "Singapore's may be at home or where protection is adequate"
                (homes (personal 'SG)) '(us-east eu-west eu-central ap-southeast))
  (check-equal? "two unnamed laws are not one home"
                (residency-among (personal 'other) (list (sample-region 'x #:country "KE"))) (deny 'personal-home-or-adequate))
  (check-equal? "personal data of unstated law is nowhere" (homes (personal 'none)) '())
  (check-equal? "public data is everywhere" (length (homes (sample-record #:class 'public #:law 'eea))) 5))
